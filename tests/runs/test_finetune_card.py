"""A finetune's card names the base that its commands need."""

from pathlib import Path

import pytest

from cogview.recipes.style import tiny
from cogview.runs.finetune_card import finetune_card


@pytest.mark.parametrize("base", [None, ".", "owner/name"])
def test_commands_name_the_base_unless_it_is_bundled(tmp_path: Path, base: str | None) -> None:
    command = "cogview caption PICTURES\ncogview rank"
    card = finetune_card(
        "Title", "image-to-text", command, base=base, data=tmp_path, num_pictures=2, licence="", recipe=tiny()
    )
    ending = {None: "", ".": " --model PATH_OF_ITS_BASE", "owner/name": " --model owner/name"}[base]
    assert f"cogview caption PICTURES{ending}\ncogview rank{ending}\n```\n" in card
