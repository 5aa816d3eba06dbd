"""Fields of requests: JSON is read strictly, forms leniently, and both mean the same."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.datastructures import FormData

from cogview.serving.a1111_forms import ImageToImageRequest, TextToImageRequest
from cogview.serving.http import ApiError, form_fields, parse_fields
from cogview.serving.openapi import document
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import (
    MAX_CANDIDATES,
    MAX_SEED,
    CaptionRequest,
    EditRequest,
    GenerationRequest,
    HistoryQuery,
    RankRequest,
    UpscaleRequest,
    side_of,
)

BODIES = [GenerationRequest, EditRequest, CaptionRequest, RankRequest, UpscaleRequest]
NEEDED = {"prompt": "a red circle"}
GOOD: dict[str, Any] = {
    "seed": 7,
    "temperature": 0.5,
    "top_k": 20,
    "top_p": 0.9,
    "guidance": 2.0,
    "adapter": "woodcut",
    "adapter_strength": -1.5,
    "candidates": 4,
    "balance_words": True,
    "output_format": "webp",
    "output_compression": 80,
    "response_format": "url",
    "user": "somebody",
    "model": "gpt-image-1",
    "n": 3,
    "size": "256x256",
    "quality": "high",
    "background": "opaque",
    "stream": False,
    "partial_images": 2,
    "region": "lower",
    "keep_pixels": True,
    "language": "zh",
    "factor": 4,
    "force": False,
}


def good(model: type[BaseModel]) -> dict[str, Any]:
    """Return a value for each field."""
    return {name: (NEEDED | GOOD)[name] for name in model.model_fields}


@pytest.mark.parametrize("model", BODIES)
def test_a_form_means_what_json_means(model: type[BaseModel]) -> None:
    values = good(model)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    from_form = form_fields(FormData(list(texts.items())), model)
    assert from_form == parse_fields(model, values)
    assert from_form.model_dump() == values


@pytest.mark.parametrize("model", BODIES)
def test_what_is_left_out_null_or_empty_in_a_form_says_nothing(model: type[BaseModel]) -> None:
    needed = {name: value for name, value in NEEDED.items() if name in model.model_fields}
    nothing = parse_fields(model, needed)
    optional = [name for name in model.model_fields if name not in needed]
    assert parse_fields(model, needed | dict.fromkeys(optional)) == nothing
    assert form_fields(FormData([*needed.items(), *((name, "") for name in optional)]), model) == nothing
    assert all(getattr(nothing, name) is None for name in optional)


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in BODIES for name in good(model) if name in model.model_fields],
)
def test_json_of_another_type_is_refused_and_the_field_is_named(model: type[BaseModel], name: str) -> None:
    values = {"prompt": "a"} if "prompt" in model.model_fields else {}
    value = good(model)[name]
    others: list[Any] = [[value], {"x": value}, "\ud800"]
    if not isinstance(value, str):
        others += [
            json.dumps(value),
            not value if isinstance(value, int | float) and value is not True else 1,
        ]
    else:
        others += [1, True]
    if isinstance(value, bool):
        others += [0, 1, 1.0]
    for other in others:
        if type(other) is type(value):
            continue
        with pytest.raises(ApiError) as error:
            parse_fields(model, values | {name: other})
        assert error.value.status == 400
        assert error.value.param is not None
        assert error.value.param.partition(".")[0] == name
        str(error.value).encode()


def read(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel | ApiError:
    """Return a request, or why it is none."""
    try:
        return parse_fields(model, fields)
    except ApiError as error:
        return error


@given(
    st.integers(-(10**20), 10**20).map(float) | st.floats(-1e3, 1e3),
    st.sampled_from(["n", "seed", "top_k", "candidates"]),
)
@settings(max_examples=100, deadline=None)
def test_whole_numbers_are_taken_however_they_are_written(number: float, name: str) -> None:
    got = read(GenerationRequest, NEEDED | {name: number})
    if number.is_integer():
        whole = read(GenerationRequest, NEEDED | {name: int(number)})
        assert got == whole or str(got) == str(whole)
        assert isinstance(got, ApiError) or type(getattr(got, name)) is int
    else:
        assert isinstance(got, ApiError)
        assert got.param == name


@pytest.mark.parametrize("value", ["1", "0", "yes", "on", "t", "", " true"])
def test_a_flag_of_a_form_is_true_or_false(value: str) -> None:
    for word, wanted in (("true", True), ("False", False), ("TRUE", True)):
        fields = form_fields(FormData([*NEEDED.items(), ("stream", word)]), GenerationRequest)
        assert fields.stream is wanted
    form = FormData([*NEEDED.items(), ("stream", value)])
    if value:
        with pytest.raises(ApiError, match="true or false"):
            form_fields(form, GenerationRequest)
    else:
        assert form_fields(form, GenerationRequest).stream is None


def test_seeds_of_all_candidates_are_exact_in_javascript() -> None:
    assert MAX_SEED + MAX_CANDIDATES < 2**53
    assert parse_fields(GenerationRequest, NEEDED | {"seed": MAX_SEED}).seed == MAX_SEED
    with pytest.raises(ApiError):
        parse_fields(GenerationRequest, NEEDED | {"seed": MAX_SEED + 1})


HALVES = ("upper", "lower", "left", "right")


@given(st.sampled_from(HALVES) | st.text("0123456789.", max_size=8) | st.text(max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_region_is_a_half_or_a_share(region: str) -> None:
    got = read(EditRequest, NEEDED | {"region": region})
    if isinstance(got, ApiError):
        assert got.param == "region"
        assert "share" in str(got)
        assert region not in HALVES
    else:
        assert region in ("", *HALVES) or 0 < float(region) <= 1


@pytest.mark.parametrize("region", ["1", "1.0", "0.5", ".25", "0.30000", "0.001", "0.10"])
def test_shares_are_taken_as_people_write_them(region: str) -> None:
    assert parse_fields(EditRequest, NEEDED | {"region": region}).region == region


SIZES = [(None, None), ("", None), ("auto", None), ("64x64", 64), ("064x064", 64)]


@pytest.mark.parametrize(("size", "side"), SIZES)
def test_a_size_is_a_square_in_pixels(size: str | None, side: int | None) -> None:
    assert side_of(size) == side


@pytest.mark.parametrize(
    "size", ["64", "64x32", "x", "64x64x64", "-64x-64", "6.0x6.0", "99999999x99999999", "６４x６４"]
)
def test_another_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="must be WIDTHxHEIGHT"):
        side_of(size)


def test_what_other_apis_send_is_lenient_where_their_clients_are() -> None:
    told = parse_fields(TextToImageRequest, {"prompt": "a", "seed": "7", "width": 512.0}, is_form=True)
    assert (told.seed, told.width) == (7, 512)
    with pytest.raises(ApiError) as error:
        parse_fields(ImageToImageRequest, {"prompt": "a", "init_images": ["x", "y"]}, is_form=True)
    assert error.value.param == "init_images"


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1", "1e1"])
def test_a_page_of_the_history_is_bounded(limit: str) -> None:
    assert parse_fields(HistoryQuery, {"limit": "100"}, is_form=True).limit == 100
    with pytest.raises(ApiError) as error:
        parse_fields(HistoryQuery, {"limit": limit}, is_form=True)
    assert error.value.param == "limit"


def test_a_document_is_plain_json() -> None:
    json.dumps(document([], ServerOptions(), None), allow_nan=False)
