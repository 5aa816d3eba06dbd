"""Model card of a finetune: training data, licence, credits and use."""

from pathlib import Path

from cogview.recipes.config import FinetuneRecipe
from cogview.world.packages import CREDITS_FILE


def finetune_card(
    title: str,
    hub_task: str,
    command: str,
    *,
    base: str | None,
    data: Path,
    num_pictures: int,
    licence: str,
    recipe: FinetuneRecipe,
) -> str:
    """Return a Markdown card with the hub's header.

    Args:
        title: its heading.
        hub_task: the hub's name of the task, such as image-to-text.
        command: shell lines that use the model, without their `--model`.
        base: the base model's path or id on the hub; None for the bundled one.
        data: the training tokens; those named in their `CREDITS.txt` are credited.
        num_pictures: in the tokens.
        licence: of the tokens; unknown if empty.
        recipe: of the training.
    """
    if base is not None:
        named = "PATH_OF_ITS_BASE" if Path(base).exists() else base
        command = "\n".join(f"{line} --model {named}" for line in command.splitlines())
    credits_file = data / CREDITS_FILE
    credit = ""
    if credits_file.is_file():
        credit_text = credits_file.read_text(encoding="utf-8", errors="replace").strip()
        credit = f"\n## Credits\n\nOf the pictures that it learnt from:\n\n```text\n{credit_text}\n```\n"
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
