"""Options and the arguments that make them are one list."""

from dataclasses import fields
from typing import get_type_hints

import pytest

from cogview.generation.options import (
    CaptionArguments,
    CaptionOptions,
    CodeArguments,
    CodeOptions,
    PictureArguments,
    PictureOptions,
    UpscaleArguments,
    UpscaleOptions,
)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (CodeOptions, CodeArguments),
        (PictureOptions, PictureArguments),
        (CaptionOptions, CaptionArguments),
        (UpscaleOptions, UpscaleArguments),
    ],
)
def test_arguments_are_the_fields_of_the_options(options: type, arguments: type) -> None:
    assert get_type_hints(arguments) == {
        field.name: get_type_hints(options)[field.name] for field in fields(options)
    }


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="temprature"):
        PictureOptions(temprature=0.5)  # type: ignore[call-arg]
