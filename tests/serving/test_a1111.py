"""Automatic1111's API, as webuiapi, SillyTavern and Open WebUI use it."""

import base64
import json
import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import LiveServer
from PIL import Image
from still_engine import FACTS

from cogview.image.picture_file import FileFormat, picture_file, read_facts
from cogview.serving.a1111_forms import TextToImageRequest, to_generation_request
from cogview.serving.http import ApiError

TEXT = "two umbrellas on a yellow ground"


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/sdapi/v1", timeout=60) as client:
        yield client


@pytest.fixture
def webui(server: LiveServer) -> Iterator[Any]:
    webuiapi = pytest.importorskip("webuiapi", reason="webuiapi is not installed; see bench/serve_clients.sh")
    api = webuiapi.WebUIApi(baseurl=f"{server.url}/sdapi/v1")
    with api.session:
        yield api


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded)))


def encoded(image: Image.Image) -> str:
    data = BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.slow
def test_webuiapi_draws_with_its_defaults(webui: Any) -> None:
    drawn = webui.txt2img(prompt=TEXT, seed=7, batch_size=2)
    assert [image.size for image in drawn.images] == [(512, 512)] * 2
    assert drawn.info["all_seeds"] == [7, 8]
    assert drawn.info["all_prompts"] == [TEXT] * 2
    assert (drawn.info["width"], drawn.info["height"]) == (512, 512)
    assert "Seed: 7, Size: 512x512" in drawn.info["infotexts"][0]
    assert {"cfg_scale", "steps", "sampler_name"} <= set(drawn.info["ignored"])
    again = webui.txt2img(prompt=TEXT, seed=8, cfg_scale=15, steps=3)
    assert again.image.tobytes() == drawn.images[1].tobytes()


@pytest.mark.slow
def test_webuiapi_redraws_and_reads_what_drew_a_picture(webui: Any) -> None:
    drawn = webui.txt2img(prompt=TEXT, seed=7, width=128, height=128)
    told = webui.png_info(drawn.image)
    assert told.info == drawn.info["infotexts"][0]
    assert told.parameters["seed"] == "7"
    mask = Image.new("L", drawn.image.size)
    mask.paste(255, (0, 0, 64, 128))
    fields = {"images": [drawn.image], "prompt": "a blue fish", "seed": 3, "width": 128, "height": 128}
    masked = webui.img2img(mask_image=mask, **fields)
    assert masked.image.size == (128, 128)
    kept, changed = np.split(np.asarray(masked.image) != np.asarray(drawn.image), [64], axis=1)[::-1]
    assert kept.mean() < changed.mean()
    varied = webui.img2img(denoising_strength=0.9, **fields)
    assert varied.info["all_seeds"] == [3]
    assert varied.image.tobytes() != masked.image.tobytes()


def test_webuiapi_finds_its_menus_filled(webui: Any) -> None:
    assert webui.util_get_model_names() == ["cogview-bundled"]
    assert webui.util_get_current_model() == "cogview-bundled"
    assert webui.util_get_sampler_names()
    assert webui.util_get_scheduler_names()
    assert [each["name"] for each in webui.get_loras()] == ["style-openmoji"]
    assert webui.get_upscalers()[0]["name"] == "None"
    assert webui.get_sd_vae() == webui.get_latent_upscale_modes() == []
    assert webui.set_options({"sd_model_checkpoint": "other"}) is None
    assert webui.refresh_checkpoints() is None
    webui.util_wait_for_ready(check_interval=0.1)
    assert webui.interrupt() == {}


def test_silly_tavern_draws(http: httpx.Client) -> None:
    # What it sends to any server of this kind, with its defaults.
    basic = {"Authorization": "Basic " + base64.b64encode(b"user:password").decode()}
    for name in (
        "options",
        "samplers",
        "schedulers",
        "sd-models",
        "upscalers",
        "latent-upscale-modes",
        "sd-vae",
    ):
        assert http.get(name, headers=basic).status_code == 200
    asked = {
        "url": "http://127.0.0.1:7860",
        "auth": "user:password",
        "prompt": TEXT,
        "negative_prompt": "blurry",
        "sampler_name": "DDIM",
        "scheduler": "normal",
        "steps": 20,
        "cfg_scale": 7,
        "width": 128,
        "height": 128,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 1.0,
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
    }
    answer = http.post("txt2img", json=asked, headers=basic).json()
    (image,) = map(opened, answer["images"])
    info = json.loads(answer["info"])
    assert image.size == (128, 128)
    assert info["all_seeds"] == [json.loads(image.text["cogview"])["seed"]]
    assert "negative_prompt" in info["ignored"]
    state = http.get("progress").json()
    assert (state["progress"], state["state"]["job_count"]) == (0.0, 0)


@pytest.mark.slow
def test_open_webui_draws(http: httpx.Client) -> None:
    options = http.get("options").json()
    models = http.get("sd-models").json()
    assert options["sd_model_checkpoint"] in [each["title"] for each in models]
    assert all(each["model_name"] for each in models)
    assert http.post("options", json=options).status_code == 200
    asked = {"prompt": TEXT, "batch_size": 2, "width": 512, "height": 512, "steps": 50}
    answer = http.post("txt2img", json=asked).json()
    assert len(answer["images"]) == 2
    assert isinstance(answer["info"], str)


@pytest.mark.slow
def test_a_style_is_a_lora(http: httpx.Client) -> None:
    asked = {"seed": 7, "width": 128, "height": 128}
    plain, style, off = (
        opened(http.post("txt2img", json=asked | {"prompt": f"{TEXT}{tag}"}).json()["images"][0])
        for tag in ("", " <lora:style-openmoji:1>", "<lora:style-openmoji:0>")
    )
    assert style.tobytes() != plain.tobytes()
    assert off.tobytes() == plain.tobytes()
    assert json.loads(style.text["cogview"])["text"] == TEXT


@pytest.mark.parametrize(
    ("name", "fields", "status", "param"),
    [
        ("txt2img", {"prompt": ""}, 400, "prompt"),
        ("txt2img", {"prompt": "a", "batch_size": 4, "n_iter": 3}, 400, "batch_size"),
        ("txt2img", {"prompt": "a <lora:oil:1>"}, 404, "adapter"),
        ("txt2img", {"prompt": "a <lora:style-openmoji:much>"}, 400, "prompt"),
        ("txt2img", {"prompt": "a", "width": 0}, 400, "width"),
        ("img2img", {"prompt": "a"}, 400, "init_images"),
        ("img2img", {"prompt": "a", "init_images": ["%"]}, 400, "init_images"),
        ("img2img", {"prompt": "a", "init_images": ["aaaa"]}, 400, "init_images"),
        ("png-info", {"image": "aaaa"}, 400, "image"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_both_forms(
    http: httpx.Client, name: str, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = http.post(name, json=fields)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param
    assert answer.json()["detail"] == answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_transparent_mask_is_drawn_where_it_is_opaque(http: httpx.Client) -> None:
    image = Image.new("RGB", (128, 128), "white")
    asked = {"prompt": TEXT, "init_images": [encoded(image)], "seed": 1, "width": 128, "height": 128}
    alpha = Image.new("L", image.size)
    alpha.paste(255, (0, 64, 128, 128))
    with_alpha = Image.new("RGBA", image.size)
    with_alpha.putalpha(alpha)
    opposite = alpha.point(lambda value: 255 - value)
    drawn = [
        http.post("img2img", json=asked | each).json()["images"][0]
        for each in (
            {"mask": encoded(alpha)},
            {"mask": "data:image/png;base64," + encoded(with_alpha)},
            {"mask": encoded(opposite), "inpainting_mask_invert": 1},
        )
    ]
    assert len({opened(each).tobytes() for each in drawn}) == 1


side = st.integers(1, 4096)


@given(width=side, height=side)
def test_the_nearest_size_is_drawn(width: int, height: int) -> None:
    asked = TextToImageRequest(prompt="a", width=width, height=height)
    drawn = int((to_generation_request(FACTS, 10, asked).size or "").partition("x")[0])
    assert all(
        abs(drawn - math.sqrt(width * height)) <= abs(other - math.sqrt(width * height))
        for other in FACTS.sizes
    )


@pytest.mark.parametrize(("scale", "side"), [(1.0, 16), (2.0, 32), (0.0, 16)])
def test_the_second_pass_of_other_models_asks_for_a_larger_size(scale: float, side: int) -> None:
    fields = {"prompt": "a", "width": 16, "height": 16, "hr_scale": scale}
    assert (
        to_generation_request(FACTS, 10, TextToImageRequest(enable_hr=True, **fields)).size
        == f"{side}x{side}"
    )
    assert to_generation_request(FACTS, 10, TextToImageRequest(**fields)).size == "16x16"


@pytest.mark.parametrize("seed", [None, -1, -2, "-1"])
def test_a_seed_below_zero_is_any(seed: Any) -> None:
    asked = TextToImageRequest.model_validate({"prompt": "a", "seed": seed})
    assert to_generation_request(FACTS, 10, asked).seed is None


@given(
    before=st.text(alphabet="ab <>:", max_size=8),
    name=st.text(alphabet="abc-", min_size=1, max_size=8),
    strength=st.one_of(st.none(), st.integers(-9, 9)),
)
def test_styles_are_read_out_of_any_prompt(before: str, name: str, strength: int | None) -> None:
    tag = f"<lora:{name}>" if strength is None else f"<lora:{name}:{strength}>"
    request = to_generation_request(FACTS, 10, TextToImageRequest(prompt=f"x {before} {tag} y"))
    assert request.adapter == (None if strength == 0 else name)
    assert request.adapter_strength == (1 if strength is None else strength or None)
    assert request.prompt == " ".join(f"x {before} y".split())


def test_one_style_is_taken_at_once() -> None:
    with pytest.raises(ApiError, match="one style"):
        to_generation_request(FACTS, 10, TextToImageRequest(prompt="a <lora:b:1> <lora:c:1>"))


facts = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(0, 2**53) | st.text(st.characters(codec="utf-8")),
)


@settings(max_examples=30)
@given(facts=facts, kind=st.sampled_from(["png", "webp", "jpeg"]))
def test_what_drew_a_picture_is_read_from_its_file(facts: dict[str, Any], kind: FileFormat) -> None:
    file = picture_file(Image.new("RGB", (2, 2)), kind, text="a", facts=facts)
    with Image.open(BytesIO(file)) as image:
        assert read_facts(image) == facts


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_of_others_say_nothing(kind: str) -> None:
    data = BytesIO()
    Image.new("RGB", (2, 2)).save(data, kind)
    with Image.open(data) as image:
        assert read_facts(image) is None
