"""Do the tensors of a file fit the model that its config describes?"""

from pathlib import Path

from torch import Tensor

from cogview.errors import CogViewError


def check_weights(got: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors whose names or shapes are not those that the config asks for.

    Args:
        got: read from the file.
        wanted: of a module built from the config; shapes alone matter.
        path: the file, for the message.

    Raises:
        CogViewError: naming the first few that are wrong.
    """
    wrong = [
        f"{name} is {list(got[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in got and got[name].shape != wanted[name].shape
    ]
    faults = [
        f"{what} {_some(names)}"
        for what, names in (
            ("missing", [name for name in wanted if name not in got]),
            ("unexpected", [name for name in got if name not in wanted]),
            ("of another shape", wrong),
        )
        if names
    ]
    if faults:
        raise CogViewError(f"The tensors in {path} are not those of its config: {'; '.join(faults)}.")


def _some(names: list[str]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
