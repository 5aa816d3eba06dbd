"""The pipeline: seeds, candidates, refusals, saving and sharing."""

import dataclasses
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import cogview
from cogview.errors import CogViewError, UsageError
from cogview.generation.devices import resolve_device, resolve_dtype
from cogview.generation.options import CodeOptions
from cogview.generation.picture_decoder import PictureDecoder
from cogview.generation.pipeline import Pipeline
from tiny import tiny_model, tiny_pipeline_folder


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tiny_model(tmp_path_factory.mktemp("pipeline"), card="# Tiny\n"))


def pixels(picture: cogview.GeneratedImage) -> np.ndarray:
    return np.asarray(picture.image)


def test_candidates_have_consecutive_seeds_and_are_different_pictures(pipe: Pipeline) -> None:
    pictures = pipe.generate("a red cat", num_candidates=3, seed=5)
    assert [picture.seed for picture in pictures] == [5, 6, 7]
    assert {picture.text for picture in pictures} == {"a red cat"}
    assert all(picture.caption_loss is None for picture in pictures)
    assert all(picture.image.size == (16, 16) and picture.image.mode == "RGB" for picture in pictures)
    assert len({tuple(picture.codes.flatten().tolist()) for picture in pictures}) == 3


def test_what_people_look_at_is_short_and_pictures_are_shown(pipe: Pipeline) -> None:
    picture = pipe.generate("a red cat", num_candidates=1, seed=5)[0]
    assert "seed=5, text='a red cat'" in repr(picture)
    parts = (picture, pipe, pipe.text_tokenizer, pipe.image_tokenizer)
    for each in parts:
        assert 10 < len(repr(each)) < 200
        assert type(each).__name__ in repr(each)
        assert "tensor" not in repr(each)
    assert len(repr(pipe.model.parts)) < 600
    shown = picture._repr_png_()
    assert shown is not None
    with Image.open(io.BytesIO(shown)) as back:
        assert np.array_equal(np.asarray(back), pixels(picture))


@pytest.mark.slow
def test_a_seed_draws_the_same_picture_alone_and_in_any_company(pipe: Pipeline) -> None:
    company = pipe.generate(["two dogs", "一只猫和一个苹果", "a red cat"], num_candidates=3, seed=1)
    for row in company:
        for picture in row:
            alone = pipe.generate(picture.text, num_candidates=1, seed=picture.seed)[0]
            assert torch.equal(alone.codes, picture.codes)
            assert np.array_equal(pixels(alone), pixels(picture))


@pytest.mark.slow
def test_a_model_draws_with_its_own_guidance_unless_told_otherwise(pipe: Pipeline, tmp_path: Path) -> None:
    guided = Pipeline(tiny_model(tmp_path, guidance=2.5))
    text = "a cat and two dogs"

    def codes(pipe: Pipeline, **settings: float) -> list[int]:
        return pipe.generate(text, num_candidates=1, **settings)[0].codes.flatten().tolist()

    assert guided.guidance == 2.5
    with pytest.warns(UserWarning, match="guidance 2.5 needs a model that was trained with dropped texts"):
        assert codes(guided) == codes(pipe, guidance=2.5)
    assert codes(guided, guidance=1) == codes(pipe)
    assert codes(guided) != codes(pipe)


@pytest.mark.slow
def test_a_model_draws_with_its_own_top_p_unless_told_otherwise(pipe: Pipeline, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    own = {top_p: Pipeline(dataclasses.replace(model, top_p=top_p)) for top_p in (0.3, 1.0)}
    codes = {top_p: each.generate_codes("a cat and two dogs", 3) for top_p, each in own.items()}
    assert not torch.equal(codes[0.3], codes[1.0])
    for top_p, each in own.items():
        assert each.top_p == each.drawer.sampling(CodeOptions()).top_p == top_p
        assert torch.equal(pipe.generate_codes("a cat and two dogs", 3, top_p=top_p), codes[top_p])
        assert torch.equal(each.generate_codes("a cat and two dogs", 3, top_p=0.3), codes[0.3])
    assert torch.equal(pipe.generate_codes("two dogs"), pipe.generate_codes("two dogs", top_p=0.8))


@pytest.mark.parametrize(("top_p", "cure"), [(0.5, r"top-p 1 \(--top-p 1\), not 0.5"), (1, "train longer$")])
@pytest.mark.slow
def test_pictures_of_one_colour_are_told_with_what_helps(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, top_p: float, cure: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.generate(["a cat", "two dogs"], 2)  # they show something
    monkeypatch.setattr(PictureDecoder, "_decode_one", lambda *_: Image.new("RGB", (16, 16), "white"))
    with pytest.warns(UserWarning, match=f"'a cat' are of one colour: .*{cure}") as told:
        pipe.generate("a cat", 2, top_p=top_p)
    assert len(told) == 1
    with pytest.warns(UserWarning, match="2 such texts"):
        pipe.generate(["a cat", "two dogs"], 1)


def test_several_texts_give_a_list_of_lists_in_their_order(pipe: Pipeline) -> None:
    rows = pipe.generate(["a cat", "a dog"], num_candidates=2)
    assert [[picture.text for picture in row] for row in rows] == [["a cat"] * 2, ["a dog"] * 2]
    assert isinstance(pipe.generate(["a cat"], num_candidates=1)[0], list)


def test_the_text_and_the_settings_matter(pipe: Pipeline) -> None:
    def codes(text: str, **settings: float) -> list[int]:
        return pipe.generate(text, num_candidates=1, **settings)[0].codes.flatten().tolist()

    assert codes("a cat") != codes("two dogs on a blue ground")
    greedy = codes("a cat", temperature=0)
    assert codes("a cat", top_k=1) == greedy
    assert codes("a cat", top_p=1e-9) == greedy
    assert codes("a cat") != greedy


def test_the_picture_is_what_the_codes_decode_to(pipe: Pipeline) -> None:
    picture = pipe.generate("a cat", num_candidates=1)[0]
    assert picture.codes.shape == (4, 4)
    decoded = pipe.image_tokenizer.decode(picture.codes[None])
    wanted = ((decoded[0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.array_equal(pixels(picture), wanted)


def test_the_transformer_gives_the_logits_of_the_codes_that_were_drawn(pipe: Pipeline) -> None:
    picture = pipe.generate("a cat", num_candidates=1, temperature=0)[0]
    sequence = pipe.template.build(pipe.text_tokenizer.encode("a cat"), picture.codes.numpy())
    with torch.no_grad():
        logits = pipe.transformer(
            torch.from_numpy(sequence.tokens)[None], torch.from_numpy(sequence.positions)[None]
        )
    assert logits.shape == (1, len(sequence.tokens), pipe.template.vocabulary.size)
    image_codes = pipe.template.vocabulary.image_codes
    first = len(sequence.tokens) - 1 - picture.codes.numel()
    greedy = logits[0, first - 1 : -2, image_codes.start : image_codes.stop].argmax(-1)
    assert torch.equal(greedy, picture.codes.flatten())


def test_progress_counts_every_code_to_the_last(pipe: Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipe.generate(["a cat", "two dogs on blue"], num_candidates=2, progress=lambda *now: seen.append(now))
    done = [num_done for num_done, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (64, 64)
    assert {total for _, total in seen} == {64}


def test_a_long_text_is_clipped_with_one_warning(pipe: Pipeline) -> None:
    long = "a red cat above a dog and " * 10
    with pytest.warns(UserWarning, match="2 of 3 texts .*12 pieces") as caught:
        rows = pipe.generate([long, "a cat", long + "two dogs"], num_candidates=1)
    assert len(caught) == 1
    assert torch.equal(rows[0][0].codes, rows[2][0].codes)  # what differs was left out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.generate("a cat", num_candidates=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_candidates": 0}, "num_candidates"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"keep": 0}, "keep"),
        ({"keep": 5}, "keep"),
        ({"keep": 2}, "ranking"),
    ],
)
def test_impossible_numbers_are_refused_by_name(pipe: Pipeline, settings: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        pipe.generate("a cat", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  \n", [], ["a cat", " "]])
def test_nothing_to_draw_is_refused(pipe: Pipeline, text: str | list[str]) -> None:
    with pytest.raises(UsageError, match=r"empty|no text"):
        pipe.generate(text)


def test_keeping_all_candidates_needs_no_ranking(pipe: Pipeline) -> None:
    assert len(pipe.generate("a cat", num_candidates=2, keep=2)) == 2


def test_a_saved_pipeline_draws_the_same_pictures(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    back = cogview.load(tmp_path / "model", device="cpu")
    assert back.card == "# Tiny\n"
    pictures, again = (each.generate("a cat", num_candidates=2) for each in (pipe, back))
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(pictures, again, strict=True))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
@pytest.mark.slow
def test_other_dtypes_load_and_draw(tmp_path: Path, dtype: str | torch.dtype) -> None:
    pipe = cogview.load(tiny_pipeline_folder(tmp_path), device="cpu", dtype=dtype)
    assert pipe.transformer.embedding.tokens.weight.dtype == resolve_dtype(dtype, torch.device("cpu"))
    assert pipe.generate("a cat", num_candidates=1)[0].codes.shape == (4, 4)


def test_the_device_and_the_dtype_are_checked() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for device in ("warp-drive", "cpu:-2", "meta?", "meta"):
        with pytest.raises(UsageError, match="device"):
            resolve_device(device)
    for dtype in ("float8", torch.int64):
        with pytest.raises(UsageError, match="dtype"):
            resolve_dtype(dtype, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_missing_gpu_is_one_line() -> None:
    with pytest.raises(UsageError, match="cpu") as caught:
        resolve_device("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_push_to_hub_makes_the_repository_and_uploads_a_whole_model(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, dict] = {}

    class FakeApi:
        def __init__(self, token: str | None) -> None:
            calls["login"] = {"token": token}

        def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
            calls["create_repo"] = {"repo_id": repo_id, **options}
            return SimpleNamespace(repo_id=repo_id)

        def create_branch(self, repo_id: str, **options: object) -> None:
            calls["create_branch"] = {"repo_id": repo_id, **options}

        def upload_folder(self, folder_path: Path, **options: object) -> SimpleNamespace:
            calls["upload_folder"] = options
            self.card = cogview.load(folder_path, device="cpu").card
            calls["card"] = {"text": self.card}
            return SimpleNamespace(commit_url="https://hub.test/commit/1")

    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    url = pipe.push_to_hub("someone/model", private=True, token="secret", branch="next", commit_message="Hi")
    assert url == "https://hub.test/commit/1"
    assert calls["login"] == {"token": "secret"}
    assert calls["create_repo"] == {"repo_id": "someone/model", "private": True, "exist_ok": True}
    assert calls["create_branch"] == {"repo_id": "someone/model", "branch": "next", "exist_ok": True}
    assert calls["upload_folder"] == {
        "repo_id": "someone/model",
        "commit_message": "Hi",
        "revision": "next",
        "create_pr": None,
    }
    assert calls["card"] == {"text": "# Tiny\n"}


def test_weights_that_are_no_numbers_draw_nothing(tmp_path: Path) -> None:
    broken = Pipeline(tiny_model(tmp_path))
    with torch.no_grad():
        broken.transformer.embedding.positions.weight[3, 0] = torch.nan
    with pytest.raises(CogViewError, match="infinite or NaN"):
        broken.generate("a red cat", num_candidates=1)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\x07"])
def test_a_text_without_anything_to_read_is_refused(pipe: Pipeline, text: str) -> None:
    with pytest.raises(UsageError, match="text 2 of 2"):
        pipe.generate(["a cat", text], num_candidates=1)
