"""Choice of the adapters of a run, by name in the model or by folder."""

from pathlib import Path

from cogview.errors import UsageError
from cogview.generation.pipeline import Pipeline
from cogview.image.decoder import fingerprint_of_decoder
from cogview.models.config import TaskName
from cogview.models.weights import fingerprint_of_transformer

TASKS: dict[str, tuple[TaskName, ...]] = {
    "adapter": ("style", "text-to-image"),
    "captioner": ("captioning",),
    "upscaler": ("super-resolution",),
}
"""Tasks of the adapters that each option accepts."""


def take_adapter(pipeline: Pipeline, option: str, given: str | None) -> str | None:
    """Return the name of an adapter, added to the pipeline first if given as a path.

    Args:
        pipeline: the model.
        option: one of `TASKS`.
        given: the option's value; None leaves the choice to the pipeline.

    Raises:
        UsageError: no such adapter, or one of another task.
    """
    if given is None:
        return None
    name = given if given in pipeline.adapters else f"given-{option}"
    is_new = name != given
    if is_new and not Path(given).expanduser().exists():
        fitting = [known for known, each in pipeline.adapters.items() if each.task in TASKS[option]]
        raise UsageError(
            f"--{option} {given} is neither an adapter of this model nor a folder: the model has "
            f"{', '.join(fitting) or 'none'} for it"
        )
    task = pipeline.add_adapter(given, name).task if is_new else pipeline.adapters[name].task
    if task not in TASKS[option]:
        (owner,) = (other for other, tasks in TASKS.items() if task in tasks)
        raise UsageError(
            f"--{option} {given} is an adapter for {task}, which is for --{owner}: "
            f"give one for {' or '.join(TASKS[option])}"
        )
    return name


def weights_of(pipeline: Pipeline, *adapters: str | None) -> dict[str, str]:
    """Return the fingerprints of all weights that a run uses.

    Args:
        pipeline: the model.
        adapters: names of the adapters; None is ignored.
    """
    return (
        {
            "transformer": pipeline.fingerprint,
            "text_tokenizer": pipeline.text_tokenizer.fingerprint,
            "image_tokenizer": pipeline.image_tokenizer.fingerprint,
        }
        | {
            f"decoder {name}": fingerprint_of_decoder(decoder)
            for name, decoder in pipeline.image_tokenizer.decoders.items()
        }
        | {
            f"adapter {name}": fingerprint_of_transformer(pipeline.adapters[name].transformer.state_dict())
            for name in adapters
            if name is not None
        }
    )
