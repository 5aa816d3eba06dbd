"""The card of what a finetune trains: what it learnt from, under which licence, whom to credit, how to use it."""

from pathlib import Path

from cogview.recipes.config import FinetuneRecipe
from cogview.world.packages import CREDITS_FILE


def finetune_card(
    title: str,
    hub_task: str,
    command: str,
    *,
    data: Path,
    num_pictures: int,
    licence: str,
    recipe: FinetuneRecipe,
) -> str:
    """Return a card in Markdown, with the header that the hub reads.

    Args:
        title: its heading.
        hub_task: what the hub calls such models, for instance image-to-text.
        command: lines for the shell that use it.
        data: tokens that it learnt from; whom their `CREDITS.txt` names is credited.
        num_pictures: that lie there.
        licence: of what lies there; unknown if empty.
        recipe: how it was trained.
    """
    credits_file = data / CREDITS_FILE
    credit = ""
    if credits_file.is_file():
        told = credits_file.read_text(encoding="utf-8", errors="replace").strip()
        credit = f"\n## Credits\n\nOf the pictures that it learnt from:\n\n```text\n{told}\n```\n"
    return f"""---
library_name: cogview
pipeline_tag: {hub_task}
license: {licence or "unknown"}
---

# {title}

Learnt from {num_pictures:,} pictures in {recipe.training.num_steps:,} steps of {recipe.training.batch_size}. What it
makes follows them, so their licence is its own: {licence or "unknown"}.

```bash
{command}
```
{credit}"""
