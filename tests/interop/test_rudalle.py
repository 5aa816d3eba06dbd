"""Checkpoints of ruDALL-E and RuDOLPH give the logits of a plain computation, draw, caption, and learn."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import cogview
from cogview.cli.main import main
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.errors import CogViewError, UsageError
from cogview.generation.text_to_image import draw, picture_request
from cogview.image.pixels import tensor_to_images
from cogview.interop.rudalle import convert_rudalle
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import PretrainedModel
from cogview.runs.convert import convert
from cogview.runs.data_options import ConvertOptions
from cogview.sequence.padded_text import PaddedTextTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.grid_attention import layer_grids
from rudalle import (
    CODES,
    HEADS,
    LAYERS,
    PIECES,
    RIGHT,
    SIDE,
    SPECIAL,
    SPECIAL_CODES,
    TEXT,
    WIDTH,
    State,
    checkpoint,
    mask_of,
    plain_logits,
)
from tiny import tiny_image_tokenizer, tiny_text_tokenizer

Version = Literal["v2", "v3"]
VERSIONS: tuple[Version, ...] = ("v2", "v3")
NUM_CODES = SIDE * SIDE


@pytest.fixture(scope="module")
def codes() -> list[int]:
    drawn: list[int] = np.random.default_rng(0).integers(0, CODES, NUM_CODES).tolist()
    return drawn


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return tiny_text_tokenizer(tmp_path_factory.mktemp("words"))


def converted(state: State, folder: Path, **more: Any) -> PretrainedModel:
    convert_rudalle(state, folder, num_heads=HEADS, **more)
    return load_pretrained(folder)


def our_logits(model: PretrainedModel, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
    """Return our logits in the others' order: all texts first, then all codes."""
    vocabulary = model.template.vocabulary
    with torch.no_grad():
        logits = model.transformer(torch.from_numpy(tokens)[None], torch.from_numpy(positions)[None])[0]
    parts = (range(vocabulary.text_pieces.start, vocabulary.pads.stop), vocabulary.image_codes)
    return torch.cat([logits[:, list(part)] for part in (*parts, vocabulary.special_codes)], dim=1)


def save(state: State, path: Path) -> str:
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("text", [[2, 5, 6, 3], [2, 3], [2, 5, 6, 7, 8, 9]])
def test_rudalle_computes_the_same(
    tmp_path: Path, version: Version, text: list[int], codes: list[int]
) -> None:
    state = checkpoint(version=version)
    model = converted(state, tmp_path / "ours")
    for layer, grid in enumerate(layer_grids(model.config.grid)):
        name = "col_mask" if layer % 4 == 1 else "conv_mask" if layer == LAYERS - 1 else "row_mask"
        assert torch.equal(grid.mask(TEXT + NUM_CODES), state[f"transformer.{name}"])
    wanted = plain_logits(state, text + [0] * (TEXT - len(text)), codes, version=version)
    sequence = model.template.build([piece for piece in text[1:] if piece != 3], np.array(codes))
    logits = our_logits(model, sequence.tokens[: len(wanted)], sequence.positions[: len(wanted)])
    assert wanted.std() > 0.1
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("version", VERSIONS)
def test_rudalle_draws_by_these_logits(tmp_path: Path, version: Version) -> None:
    """The likeliest codes, with caches and guesses, are those of whole sequences without."""
    state = checkpoint(version=version)
    model = converted(state, tmp_path / "ours")
    runner = Runner.of(model.latest)
    request = picture_request(runner, model.template, [5, 6], 0, SamplingConfig(temperature=0.0))
    drawn = draw(runner, [request])[0].tolist()
    text = [2, 5, 6, 3] + [0] * (TEXT - 4)
    for num in (0, 1, SIDE, 5 * SIDE + 3, NUM_CODES - 1):
        logits = plain_logits(state, text, drawn[:num], version=version)[-1, PIECES + TEXT :]
        assert int(logits.argmax()) == drawn[num]


@pytest.mark.parametrize("special", [0, SPECIAL])
def test_rudolph_computes_the_same(
    tmp_path: Path, special: int, codes: list[int], words: TextTokenizer
) -> None:
    pieces = words.num_pieces
    state = checkpoint(rudolph=True, special=special, pieces=pieces)
    model = converted(
        state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES)
    )
    assert len(model.template.vocabulary.special_codes) == (SPECIAL_CODES if special else 0)
    for layer, grid in enumerate(layer_grids(model.config.grid)):
        square = "last_conv_mask" if layer == LAYERS - 1 else "conv_mask"
        name = {1: "col_mask", 3: square}.get(layer % 4, "row_mask")
        assert torch.equal(grid.mask(TEXT + NUM_CODES + RIGHT), state[f"transformer.{name}"])
    left = [2, pieces + 2] if special else [2]
    wanted = plain_logits(state, [*left, 5, 3] + [0] * (TEXT - len(left) - 2), codes)
    sequence = model.template.build([5], np.array(codes))
    logits = our_logits(model, sequence.tokens, sequence.positions)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("special", [0, SPECIAL])
def test_rudolph_captions_and_ranks(
    tmp_path: Path, special: int, codes: list[int], words: TextTokenizer
) -> None:
    """CapLoss is the mean over the right text's pieces, after an empty left text."""
    pieces = words.num_pieces
    state = checkpoint(rudolph=True, special=special, pieces=pieces)
    converted(state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES))
    pipe = cogview.load(tmp_path / "ours")
    caption = "a cat"
    written = words.encode(caption)[: RIGHT - 2]
    caption = words.decode(written)
    assert words.encode(caption) == written
    left = [2, pieces + 3, 3] if special else []
    opening = [2, pieces + 5] if special else [2]
    logits = plain_logits(state, left + [0] * (TEXT - len(left)), codes, [*opening, *written])
    of_text = logits[-len(written) - 1 : -1, : pieces + special].log_softmax(-1)
    wanted = -of_text.gather(1, torch.tensor(written)[:, None]).mean()
    square = torch.tensor(codes).view(SIDE, SIDE)
    assert pipe.caption_loss(square, caption)[0] == pytest.approx(float(wanted), abs=1e-4)
    picture = pipe.generate(caption, 3, keep=2)
    assert [each.caption_loss for each in picture] == sorted(each.caption_loss or 0 for each in picture)
    for options in ({"num_beams": 2}, {"num_beams": 1}, {"num_captions": 2, "temperature": 1.0}):
        (texts,) = pipe.caption(square, **options)
        assert all(each.text for each in texts)


def test_a_greedy_caption_follows_the_plain_logits(
    tmp_path: Path, codes: list[int], words: TextTokenizer
) -> None:
    pieces = words.num_pieces
    state = checkpoint(rudolph=True, pieces=pieces)
    converted(state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES))
    model = cogview.load(tmp_path / "ours").model.caption_model()
    ((text,),) = model.sample([np.array(codes)], [0], SamplingConfig(temperature=0.0))
    right = [2]
    for piece in text.pieces:
        logits = plain_logits(state, [0] * TEXT, codes, right)[-1, :pieces]
        logits[
            [0, 1, 2, *([3] if right == [2] else [])]
        ] = -torch.inf  # what captions never have, an empty one too
        assert piece == int(logits.argmax())
        right.append(piece)


@pytest.mark.parametrize("fields", [{"num_left_tokens": TEXT - 1}, {"first_code_position": TEXT}])
def test_a_captioner_for_other_places_of_the_grid_is_refused(
    tmp_path: Path, codes: list[int], words: TextTokenizer, fields: dict[str, int]
) -> None:
    state = checkpoint(rudolph=True, pieces=words.num_pieces)
    converted(state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES))
    path = tmp_path / "ours" / "adapters" / "captioner" / "config.json"
    config = json.loads(path.read_text())
    config["template"] |= fields
    path.write_text(json.dumps(config))
    with pytest.raises(CogViewError, match="do not fit together"):
        cogview.load(tmp_path / "ours").caption(torch.tensor(codes).view(SIDE, SIDE))


def test_the_command_converts_a_file(
    tmp_path: Path, words: TextTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures in any batch, capitals or not."""
    source = save(checkpoint(pieces=words.num_pieces), tmp_path / "model.bin")
    tiny_image_tokenizer(CODES).save_pretrained(tmp_path / "pictures")
    words.save(tmp_path / "text.model")
    ours = str(tmp_path / "ours")
    more = ["--text-tokenizer", str(tmp_path / "text.model"), "--image-tokenizer", str(tmp_path / "pictures")]
    assert main(["convert", source, ours, *more, "--num-heads", str(HEADS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "ruDALL-E"
    pipe = cogview.load(ours)
    alone, together = pipe.generate("A CAT", seed=5), pipe.generate(["a cat", "two dogs"], seed=5)
    assert torch.equal(alone[0].codes, together[0][0].codes), "capitals are read as small letters"


def _sparse() -> Tensor:
    return mask_of("row", TEXT, SIDE).to_sparse()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda state: state.pop("to_logits.1.bias"), CogViewError, "ruDALL-E: to_logits.1.bias is missing"),
        (lambda state: state.update(other=torch.ones(1)), CogViewError, "other"),
        (
            lambda state: state.update({"to_logits.0.weight": torch.ones(3)}),
            CogViewError,
            "to_logits.0.weight",
        ),
        (
            lambda state: state["text_embeddings.weight"].mul_(torch.nan),
            CogViewError,
            "text_embeddings.* NaN",
        ),
        (
            lambda state: state["transformer.row_mask"].logical_not_(),
            CogViewError,
            "row_mask is not that of ruDALL-E",
        ),
        (lambda state: state["transformer.conv_mask"].logical_not_(), CogViewError, "conv_mask"),
        (lambda state: state.update({"transformer.row_mask": _sparse()}), CogViewError, "row_mask"),
        (lambda state: state.update({"transformer.conv_mask": _sparse()}), CogViewError, "conv_mask"),
        (
            lambda state: state.update({"transformer.col_mask": _sparse().to("meta")}),
            CogViewError,
            "col_mask",
        ),
        (lambda state: state.pop("transformer.conv_mask"), UsageError, "--sequence"),
        (
            lambda state: state.pop("image_row_embeddings.weight"),
            CogViewError,
            "ruDALL-E.* image_row.* missing",
        ),
    ],
)
def test_files_that_are_cut_or_changed_are_refused(
    tmp_path: Path, change: Any, error: type[CogViewError], message: str
) -> None:
    state = checkpoint()
    change(state)
    save(state, tmp_path / "model.bin")
    options = ConvertOptions(source=tmp_path / "model.bin", out=tmp_path / "ours", num_heads=HEADS)
    with pytest.raises(error, match=message):
        convert(options)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("name", "num", "said"),
    [
        ("image_row_embeddings.weight", 91, "91 x 91"),
        ("image_row_embeddings.weight", 10_000, "10000"),
        ("l_text_pos_embeddings.weight", 2, "got -1"),
        ("l_text_pos_embeddings.weight", PIECES + SPECIAL + TEXT, "do not fit"),
        ("r_text_pos_embeddings.weight", 1, "got -1"),
        ("r_text_pos_embeddings.weight", 9_000, "9151"),
        ("transformer.layers.100000.x", 1, "layers.8.input_layernorm.bias is missing"),
    ],
)
def test_a_fault_of_the_file_is_told_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, num: int, said: str
) -> None:
    state = checkpoint(rudolph=True, special=SPECIAL) | {name: torch.zeros(num, WIDTH)}
    source = save(state, tmp_path / "model.bin")
    flags = ["--num-heads", str(HEADS), "--kernel-sizes", "3", "5"]
    assert main(["convert", source, str(tmp_path / "ours"), *flags]) == 1
    error = capsys.readouterr().err
    assert source in error
    assert said in error
    assert error.count("\n") == 1


def test_a_damaged_tokenizer_is_told_by_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.model").write_bytes(b"4 3\n")
    words = ["convert", save(checkpoint(), tmp_path / "model.bin"), str(tmp_path / "ours")]
    assert main([*words, "--text-tokenizer", str(tmp_path / "text.model")]) == 1
    assert "text.model is a YouTokenToMe model" in (error := capsys.readouterr().err)
    assert "model.bin" not in error


def test_rudolph_is_written_with_its_captioner_or_not_at_all(tmp_path: Path) -> None:
    state, name = checkpoint(rudolph=True), "r_text_pos_embeddings.weight"
    with pytest.raises(CogViewError):
        convert_rudalle(
            state | {name: state[name][:2]}, tmp_path / "ours", num_heads=HEADS, kernel_sizes=(3, 5)
        )
    assert not (tmp_path / "ours").exists()
    for _ in range(2):  # the second replaces the first
        assert converted(state, tmp_path / "ours").adapters["captioner"].task == "captioning"


@pytest.mark.parametrize("num_heads", [0, -2, 5])
def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path, num_heads: int) -> None:
    with pytest.raises(UsageError, match=f"--num-heads {num_heads}"):
        convert_rudalle(checkpoint(), tmp_path / "ours", num_heads=num_heads)


@pytest.mark.parametrize("rudolph", [False, True])
def test_tokenizers_of_another_size_are_refused(
    tmp_path: Path, rudolph: bool, words: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than the tokenizer has are special pieces or codes of RuDOLPH, but not in a published model."""
    monkeypatch.setattr("cogview.interop.rudalle_layout.NUM_PIECES", words.num_pieces + 2)
    monkeypatch.setattr("cogview.interop.rudalle_layout.NUM_CODES", CODES)
    state = checkpoint(rudolph=rudolph, pieces=words.num_pieces + 2)
    with pytest.raises(CogViewError, match=f"has {words.num_pieces} pieces"):
        converted(state, tmp_path / "ours", text_tokenizer=words)
    with pytest.raises(CogViewError, match=f"has {CODES - 1} codes"):
        converted(state, tmp_path / "ours", image_tokenizer=tiny_image_tokenizer(CODES - 1))


def test_without_masks_the_sequence_has_to_be_told(tmp_path: Path, codes: list[int]) -> None:
    state = {name: each for name, each in checkpoint(version="v2").items() if "mask" not in name}
    model = converted(state, tmp_path / "ours", sequence="v2")
    assert model.config.grid.wraps
    assert isinstance(model.template, PaddedTextTemplate)
    assert model.template.num_text_tokens == TEXT + 1
    with pytest.raises(UsageError, match="--sequence is v3"):
        converted(checkpoint(version="v2"), tmp_path / "other", sequence="v3")
    rudolph = {name: each for name, each in checkpoint(rudolph=True).items() if "mask" not in name}
    with pytest.raises(UsageError, match="--kernel-sizes"):
        converted(rudolph, tmp_path / "other")
    with pytest.raises(UsageError, match="leave it out"):
        converted(rudolph, tmp_path / "other", sequence="v3")
    assert converted(rudolph, tmp_path / "other", kernel_sizes=(3, 5)).config.grid.kernel_sizes[3::4] == (
        3,
        5,
    )


def test_weights_keep_their_dtype_and_learn(tmp_path: Path) -> None:
    """Also through int8 and back, with the head in int8 too."""
    state = {name: each.half() if each.is_floating_point() else each for name, each in checkpoint().items()}
    model = converted(state, tmp_path / "ours")
    assert model.source.weights.dtype_of("own_head.weight") == torch.float16  # type: ignore[union-attr]
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "int8"), "--to", "int8"]) == 0
    rounded = load_pretrained(tmp_path / "int8")
    config = SamplingConfig(temperature=0.0)
    drawn = [
        draw(runner, [picture_request(runner, model.template, [5], 0, config)])[0]
        for runner in (Runner.of(model.latest), Runner.of(rounded.latest, dtype=torch.int8))
    ]
    assert (drawn[0] == drawn[1]).float().mean() > 0.5


def pairs_of(folder: Path, model: PretrainedModel) -> Path:
    """Write tokens of a few pairs for a model."""
    assert model.text_tokenizer is not None
    assert model.image_tokenizer is not None
    pictures, tokens = folder / "pictures", folder / "tokens"
    for number in range(3):
        codes = torch.full((1, SIDE, SIDE), number)
        picture = tensor_to_images(model.image_tokenizer.decode(codes))[0]
        pictures.mkdir(exist_ok=True)
        picture.save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a cat")
    words, images = folder / "ours" / "text.model", folder / "ours" / "image_tokenizer"
    side = SIDE * model.image_tokenizer.downsampling_factor
    command = ["tokenize", str(pictures), "--out", str(tokens), "--size-pixels", str(side)]
    assert main([*command, "--text-tokenizer", str(words), "--image-tokenizer", str(images)]) == 0
    return tokens


def test_tasks_are_learnt_that_the_masks_allow(
    tmp_path: Path, words: TextTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint(rudolph=True, pieces=words.num_pieces)
    model = converted(
        state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES)
    )
    tokens = pairs_of(tmp_path, model)
    base = str(tmp_path / "ours")
    common = ["--data", str(tokens), "--base", base, "--licence", "MIT", "--training.num-steps", "2"]
    common += ["--training.batch-size", "2"]

    def train(task: str, *more: str) -> int:
        return main(["train", task, "tiny", *common, "--out", str(tmp_path / task), *more])

    assert train("style", "--trains-words", "--sample-texts", "a cat") == 0
    assert train("captioning", "--trains-words") == 0
    pipe = cogview.load(base)
    pipe.add_adapter(tmp_path / "style", "style")
    pipe.add_adapter(tmp_path / "captioning", "words")
    drawn = pipe.generate("a cat", adapter="style", captioner="words", keep=1, num_candidates=2)
    assert drawn[0].caption_loss is not None
    capsys.readouterr()
    assert train("style", "--kept-codes", "5") == 2
    assert "give --kept-codes None" in capsys.readouterr().err
    shape = [
        "--transformer.num-layers",
        "4",
        "--transformer.hidden-size",
        "32",
        "--transformer.num-heads",
        "2",
    ]
    shape += ["--transformer.grid.masks", *["row"] * 4, "--transformer.grid.kernel-sizes", *["0"] * 4]
    started = ["train", "text-to-image", "rudolph-350m", "--data", str(tokens), "--start-from", base, *shape]
    assert main([*started, "--out", str(tmp_path / "started")]) == 1
    assert "train it further with cogview train style" in capsys.readouterr().err
    assert train("super-resolution", "--low", str(tokens)) == 2
    assert "dense attention" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shape_trains_from_nothing(tmp_path: Path, words: TextTokenizer) -> None:
    state = checkpoint(pieces=words.num_pieces)
    model = converted(
        state, tmp_path / "ours", text_tokenizer=words, image_tokenizer=tiny_image_tokenizer(CODES)
    )
    tokens = pairs_of(tmp_path, model)
    shape = {"num-layers": ["4"], "hidden-size": ["32"], "num-heads": ["2"]}
    masks = {"masks": ["row", "column", "row", "convolution"], "kernel-sizes": ["0", "0", "0", "3"]}
    flags = [part for name, values in shape.items() for part in (f"--transformer.{name}", *values)]
    flags += [part for name, values in masks.items() for part in (f"--transformer.grid.{name}", *values)]
    training = {"num-steps": "30", "batch-size": "4", "num-micro-batches": "1", "learning-rate": "3e-3"}
    flags += [part for name, value in training.items() for part in (f"--training.{name}", value)]
    flags.append("--training.no-compile")
    out = tmp_path / "run"
    command = ["train", "text-to-image", "rudolph-350m", "--data", str(tokens), "--out", str(out), *flags]
    assert main(command) == 0
    losses = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    of_pictures = [each["image_loss_nats"] for each in losses if "image_loss_nats" in each]
    assert of_pictures[-1] < 0.9 * of_pictures[0]
    assert cogview.load(out).generate("a cat", seed=1)[0].image.size == (SIDE * 4, SIDE * 4)
