"""OpenAI's own Python client against a server as users start it."""

import base64
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from live import LiveServer
from PIL import Image

SMALL = {"prompt": "two umbrellas on a yellow ground", "size": "128x128", "extra_body": {"seed": 7}}


@pytest.fixture
def client(server: LiveServer, new_client: Callable[..., openai.OpenAI]) -> openai.OpenAI:
    return new_client(server.url, max_retries=0)


def opened(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(BytesIO(base64.b64decode(encoded)))


def png(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def equal(left: Image.Image, right: Image.Image) -> bool:
    return left.size == right.size and left.tobytes() == right.tobytes()


@pytest.mark.slow
def test_pictures_have_a_seed_each_which_draws_them_again_alone(client: openai.OpenAI) -> None:
    both = client.images.generate(n=2, **SMALL)
    assert abs(both.created - time.time()) < 60
    assert (both.size, both.output_format, both.background) == ("128x128", "png", "opaque")
    assert both.data is not None
    for each in both.data:
        assert set(each.to_dict()) == {"b64_json", "revised_prompt", "seed"}  # one of b64_json and url alone
        assert each.revised_prompt == SMALL["prompt"]
    assert [each.model_extra["seed"] for each in both.data] == [7, 8]
    (second,) = client.images.generate(**SMALL | {"extra_body": {"seed": 8}}).data
    assert equal(opened(second.b64_json), opened(both.data[1].b64_json))
    assert not equal(opened(second.b64_json), opened(both.data[0].b64_json))


@pytest.mark.slow
def test_usage_counts_pieces_and_codes(client: openai.OpenAI) -> None:
    usage = client.images.generate(n=2, **SMALL).usage
    assert usage is not None
    assert usage.input_tokens == usage.input_tokens_details.text_tokens > 0
    assert usage.input_tokens_details.image_tokens == 0
    assert usage.output_tokens == 2 * 16 * 16
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_files_are_of_the_kind_that_was_asked_for(client: openai.OpenAI, kind: Any) -> None:
    answer = client.images.generate(output_format=kind, output_compression=80, **SMALL)
    assert answer.output_format == kind
    image = opened(answer.data[0].b64_json)
    assert image.format == kind.upper()
    assert image.size == (128, 128)


@pytest.mark.parametrize("asked", ["field", "query"])
def test_urls_are_fetched_without_a_key(
    server: LiveServer, new_client: Callable[..., openai.OpenAI], asked: str
) -> None:
    wanted = {"response_format": "url"}
    client = new_client(
        server.url, default_query=wanted if asked == "query" else None
    )  # as langchain is set up
    (datum,) = client.images.generate(**SMALL, **(wanted if asked == "field" else {})).data
    assert datum.b64_json is None
    assert datum.url is not None
    answer = httpx.get(datum.url)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(answer.content)).size == (128, 128)
    assert httpx.get(datum.url[:-1] + ("A" if datum.url[-1] != "A" else "B")).status_code == 404


@pytest.mark.slow
def test_a_stream_shows_the_picture_while_it_is_drawn(
    server: LiveServer, new_client: Callable[..., openai.OpenAI]
) -> None:
    client = new_client(server.url, default_query={"response_format": "url"})  # streams have no urls
    fields = SMALL | {"size": "512x512"}
    for seed in range(20):  # a picture may be done before it could be shown
        fields["extra_body"] = {"seed": seed}
        with client.images.generate(stream=True, partial_images=2, **fields) as stream:
            events = list(stream)
        *partial, last = events
        if partial:
            break
    assert [event.type for event in partial] == ["image_generation.partial_image"] * len(partial)
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert 1 <= len(partial) <= 2
    assert last.type == "image_generation.completed"
    assert last.usage.output_tokens == 16 * 16
    for event in events:
        assert abs(event.created_at - time.time()) < 60
        assert (event.size, event.quality, event.background) == ("512x512", "auto", "opaque")
        assert event.output_format == "png"
    whole = client.images.generate(response_format="b64_json", **fields)
    assert equal(opened(last.b64_json), opened(whole.data[0].b64_json))


@pytest.mark.slow
def test_a_stream_of_several_pictures_completes_each(client: openai.OpenAI) -> None:
    with client.images.generate(n=3, stream=True, **SMALL) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_generation.completed"] * 3
    assert {event.model_extra["seed"] for event in events} == {7, 8, 9}


@pytest.mark.slow
def test_a_mask_says_what_is_drawn_anew(client: openai.OpenAI) -> None:
    image = opened(
        client.images.generate(prompt="two umbrellas on a yellow ground").data[0].b64_json
    ).convert("RGB")
    mask = Image.new("RGBA", image.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (128, 0, 256, 256))  # the right half is transparent
    answer = client.images.edit(
        image=png(image), mask=png(mask), prompt="a blue fish", extra_body={"keep_pixels": True, "seed": 1}
    )
    assert answer.usage.input_tokens_details.image_tokens == 16 * 16
    assert answer.usage.output_tokens == 16 * 16
    change = np.asarray(opened(answer.data[0].b64_json).convert("RGB")) != np.asarray(image)
    assert not change[:, :128].any()
    assert change[:, 128:].any()


@pytest.mark.slow
def test_without_a_mask_a_picture_is_varied(client: openai.OpenAI) -> None:
    image = base64.b64decode(client.images.generate(**SMALL).data[0].b64_json)
    varied = {"n": 4, "size": "128x128", "extra_body": {"seed": 1, "temperature": 5, "top_p": 1.0}}
    answer = client.images.edit(image=image, prompt="a blue fish", **varied)
    assert answer.usage.output_tokens == 4 * 16 * 16
    pictures = [opened(each.b64_json) for each in answer.data]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert {picture.size for picture in pictures} == {(128, 128)}


@pytest.mark.slow
def test_an_edit_is_streamed(client: openai.OpenAI) -> None:
    image = base64.b64decode(client.images.generate(**SMALL).data[0].b64_json)
    with client.images.edit(image=image, prompt="two umbrellas", stream=True, partial_images=1) as stream:
        events = list(stream)
    assert events[-1].type == "image_edit.completed"
    assert {event.type for event in events[:-1]} <= {"image_edit.partial_image"}
    assert opened(events[-1].b64_json).size == (256, 256)


def test_models_are_listed_and_described(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert listed[0].id == "cogview-bundled"
    for each in listed:
        assert client.models.retrieve(each.id) == each
        assert each.object == "model"


@pytest.mark.slow
def test_a_style_is_a_model_of_its_own(client: openai.OpenAI) -> None:
    plain, style = (client.images.generate(model=each.id, **SMALL) for each in client.models.list().data[:2])
    assert not equal(opened(plain.data[0].b64_json), opened(style.data[0].b64_json))


@pytest.mark.slow
def test_names_and_fields_that_change_nothing_are_let_pass(client: openai.OpenAI) -> None:
    plain = client.images.generate(**SMALL)
    foreign = client.images.generate(
        model="gpt-image-1",
        quality="hd",
        style="vivid",
        background="auto",
        moderation="low",
        user="me",
        n=1,
        **SMALL,
    )
    assert equal(opened(foreign.data[0].b64_json), opened(plain.data[0].b64_json))
    assert opened(client.images.generate(prompt="a cat", size="auto").data[0].b64_json).size == (256, 256)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"background": "transparent"}, "background", "invalid_value"),
        ({"output_format": "svg"}, "output_format", "invalid_value"),
        ({"output_format": "gif", "stream": True}, "output_format", "invalid_value"),
        ({"size": "77x77"}, "size", "invalid_value"),
        ({"size": "1536x1024"}, "size", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"extra_body": {"seed": "x" * 100}}, "seed", "invalid_value"),
        ({"prompt": "  "}, "prompt", "invalid_value"),
        ({"extra_body": {"seed": -1}}, "seed", "invalid_value"),
        ({"extra_body": {"candidates": 1}, "n": 2}, "candidates", None),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_is_to_blame(
    client: openai.OpenAI, fields: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**{"prompt": "a cat"} | fields)
    assert (error.value.param, error.value.code) == (param, code)
    assert error.value.type == "invalid_request_error"
    assert error.value.request_id == error.value.response.headers["x-request-id"]
    assert param in error.value.message


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda client: client.models.retrieve("gpt-image-1"), "model_not_found"),
        (
            lambda client: client.images.generate(model="cogview-bundled:oil", prompt="a cat"),
            "model_not_found",
        ),
        (lambda client: client.post("/images/variations", cast_to=object, body={}), "http_404"),
    ],
)
def test_what_is_not_there_is_not_found(
    client: openai.OpenAI, ask: Callable[[openai.OpenAI], object], code: str
) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        ask(client)
    assert error.value.type == "not_found_error"
    assert error.value.code == code


@pytest.mark.slow
def test_a_text_longer_than_the_model_reads_is_told(client: openai.OpenAI) -> None:
    short, long = (client.images.generate(prompt="dog " * num) for num in (3, 3000))
    assert short.usage is not None
    assert long.usage is not None
    assert "is_cut" not in short.model_dump()
    assert long.model_dump()["is_cut"] is True
    assert short.usage.input_tokens < long.usage.input_tokens < 3000


@pytest.mark.parametrize("image", [b"", b"no picture", png(Image.new("RGB", (8, 8)))[:45]])
def test_files_that_are_no_pictures_are_refused(client: openai.OpenAI, image: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.images.edit(image=("a.png", image, "image/png"), prompt="a cat")
    assert error.value.param == "image"
    assert "object at" not in error.value.message
