"""litellm against a server as users start it. It weighs 300 MB with what it needs, so it is no part of `dev`.

bench/serve_clients.sh installs it beside what is there, and runs these tests.
"""

import base64
from io import BytesIO
from typing import Any

import pytest
from live import LiveServer
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")  # its own, of what it imports
litellm = pytest.importorskip("litellm", reason="litellm is not installed; see bench/serve_clients.sh")


@pytest.fixture
def asked(server: LiveServer) -> dict[str, Any]:
    return {
        "model": "openai/gpt-image-1",
        "api_base": f"{server.url}/v1",
        "api_key": "none",
        "prompt": "two umbrellas on a yellow ground",
        "size": "128x128",
    }


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded)))


def test_pictures_are_drawn_with_the_seed_in_their_files(asked: dict[str, Any]) -> None:
    answer = litellm.image_generation(n=2, seed=7, **asked)
    images = [opened(each.b64_json) for each in answer.data]
    assert [image.size for image in images] == [(128, 128)] * 2
    assert ['"seed": 7' in image.text["cogview"] for image in images] == [True, False]
    assert answer.usage.output_tokens == 2 * 16 * 16


def test_a_picture_is_redrawn(asked: dict[str, Any]) -> None:
    image = BytesIO(base64.b64decode(litellm.image_generation(**asked).data[0].b64_json))
    image.name = "a.png"
    answer = litellm.image_edit(image=[image], **asked)
    assert opened(answer.data[0].b64_json).size == (128, 128)


def test_what_is_refused_is_told(asked: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match="77x77"):
        litellm.image_generation(**asked | {"size": "77x77"})
