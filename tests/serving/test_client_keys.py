"""Keys as clients give them: OpenAI's as a token, Automatic1111's as the password of any user."""

from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from still_engine import StillServer, still_server

from cogview.serving.options import ServerOptions

KEY = "sk-secret"


@pytest.fixture(scope="module")
def locked() -> Iterator[StillServer]:
    with still_server(ServerOptions(api_keys=("other", KEY))) as server:
        yield server


def test_openais_client_is_let_in_with_a_key_alone(
    locked: StillServer, new_client: Callable[..., openai.OpenAI]
) -> None:
    stranger = new_client(locked.url, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as error:
        stranger.models.list()
    assert (error.value.code, error.value.type) == ("invalid_api_key", "authentication_error")
    assert "that is none of" in error.value.message
    assert KEY not in error.value.message
    stranger.api_key = KEY
    assert stranger.models.list().data[0].id == "still"


def test_clients_of_automatic1111_give_it_as_a_password(locked: StillServer) -> None:
    address = f"{locked.url}/sdapi/v1/options"
    assert httpx.get(address, auth=("any", KEY)).json()["sd_model_checkpoint"] == "still"
    refused = httpx.get(address, auth=("any", "wrong"))
    assert refused.status_code == 401
    assert refused.json()["detail"] == refused.json()["error"]["message"]


def test_a_client_without_a_key_is_told_how_to_give_one(locked: StillServer) -> None:
    message = httpx.get(f"{locked.url}/v1/models").json()["error"]["message"]
    assert message == "give the server's API key: Authorization: Bearer KEY"
