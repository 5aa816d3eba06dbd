"""The authors' 50,000-piece model loads and cuts texts as theirs does."""

import os
import zipfile
from pathlib import Path

import pytest

from cogview.errors import CogViewError, UsageError
from cogview.text.released import MEMBER, extract_released_model, main
from cogview.text.tokenizer import TextTokenizer

VARIABLE = "COGVIEW_RELEASED_TEXT_MODEL"


@pytest.fixture(scope="module")
def released() -> TextTokenizer:
    if VARIABLE not in os.environ:
        pytest.skip(
            f"{VARIABLE} is not set: give it the path of cog-pretrain.model (see cogview.text.released)"
        )
    return TextTokenizer.from_file(os.environ[VARIABLE])


def test_the_released_model_has_its_vocabulary(released: TextTokenizer) -> None:
    assert released.num_pieces == 50000
    assert released.fingerprint == "6ea6f4164152bc58"


def test_the_released_model_cuts_the_known_text_into_six(released: TextTokenizer) -> None:
    text = "一只可爱的小猫坐在草地上"
    pieces = released.encode(text)
    assert len(pieces) == 6
    assert released.decode(pieces) == text


@pytest.mark.parametrize("content", [None, b"no zip at all", {}, {MEMBER: b"another model"}])
def test_another_file_than_the_wheel_is_refused(
    tmp_path: Path, content: bytes | dict[str, bytes] | None
) -> None:
    wheel = tmp_path / "some.whl"
    if isinstance(content, bytes):
        wheel.write_bytes(content)
    elif content is not None:
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    with pytest.raises(CogViewError, match=r"some\.whl .*download"):
        extract_released_model(wheel, tmp_path / "text.model")
    assert not (tmp_path / "text.model").exists()


def test_the_command_needs_two_paths() -> None:
    with pytest.raises(UsageError, match="WHEEL MODEL"):
        main(["only.whl"])
