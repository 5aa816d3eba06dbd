"""Released weights for captions and super-resolution stand beside a released model, and compute what they should."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import cogview
from cogview.cli.main import main
from cogview.decoding.config import SamplingConfig
from cogview.generation.pipeline import Pipeline
from cogview.generation.super_resolution import SuperResolution
from cogview.sequence.super_resolution import SuperResolutionTemplate
from released import State, released_logits, released_state, text_model_of_50_000_pieces, write_released
from tiny import tiny_image_tokenizer

pytestmark = pytest.mark.slow

FIRST_PIECE, FIRST_SEPARATOR = 8_192, 58_192
PAD, BOI1, BOI2, EOI1, ROI1, ROI2, BASE, POS0 = (FIRST_SEPARATOR + n for n in (0, 1, 2, 4, 7, 8, 16, 18))


@pytest.fixture(scope="module")
def state() -> State:
    return released_state(hidden=64, layers=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, state: State) -> Path:
    """Make base/, captioning/ and super-resolution/ of the same weights: what they learnt does not matter here."""
    home = tmp_path_factory.mktemp("home")
    source = write_released(state, home / "source")
    words = text_model_of_50_000_pieces(home / "cog-pretrain.model")
    tiny_image_tokenizer(num_codes=8192).save_pretrained(home / "pictures")
    given = ["--text-tokenizer", str(words), "--image-tokenizer", str(home / "pictures")]
    assert main(["convert", str(source), str(home / "base"), *given]) == 0
    for task in ("captioning", "super-resolution"):
        assert main(["convert", str(source), str(home / task), "--task", task, *given]) == 0
    return home


@pytest.fixture(scope="module")
def pipe(home: Path) -> Pipeline:
    pipe = cogview.load(home / "base", "cpu")
    for task in ("captioning", "super-resolution"):
        pipe.add_adapter(home / task, task)
    return pipe


def test_cards_name_the_file_by_its_checksum(home: Path) -> None:
    (weights,) = (home / "source").rglob("*.pt")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for model in ("base", "captioning"):
        assert f"`{weights.name}` (SHA-256 {digest})" in (home / model / "README.md").read_text()


def test_caption_losses_are_those_of_the_plain_computation(pipe: Pipeline, state: State) -> None:
    codes = torch.randint(8192, (32, 32), generator=torch.Generator().manual_seed(2))
    texts = ["a cat", "dogs"]
    losses = pipe.caption_loss(codes, texts)
    for text, loss in zip(texts, losses, strict=True):
        pieces = torch.tensor(pipe.text_tokenizer.encode(text)) + FIRST_PIECE
        picture = torch.cat([torch.tensor([BASE, BOI1]), codes.flatten(), torch.tensor([EOI1, ROI1])])
        tokens = torch.cat([picture, pieces])
        logits = released_logits(state, tokens[None], torch.arange(len(tokens))[None], heads=1)[0]
        log_p = logits[len(picture) - 1 : -1, FIRST_PIECE : PAD + 1].log_softmax(-1)
        wanted = -log_p.gather(1, (pieces - FIRST_PIECE)[:, None]).mean()
        assert float(loss) == pytest.approx(float(wanted), abs=1e-4)


@torch.no_grad()
def test_codes_upscaled_greedily_are_the_likeliest_of_the_plain_computation(
    pipe: Pipeline, state: State
) -> None:
    low = torch.randint(8192, (1, 16, 16), generator=torch.Generator().manual_seed(3))
    learnt = pipe.adapters["super-resolution"]
    template = learnt.template_of(SuperResolutionTemplate, pipe.template.vocabulary)
    pieces = pipe.text_tokenizer.encode("a cat")
    upscaler = SuperResolution(pipe.model.runner_of(learnt), template)
    high = upscaler.upscale(low, [pieces], [0], SamplingConfig(temperature=0.0))
    assert high.shape == (1, 32, 32)
    before = torch.cat(
        [
            torch.tensor([ROI1]),
            torch.tensor(pieces) + FIRST_PIECE,
            torch.tensor([BASE, BOI1]),
            low.flatten(),
            torch.tensor([EOI1]),
        ]
    )
    after = torch.cat([torch.tensor([ROI2, POS0, BASE, BOI2]), high.flatten()])
    positions = torch.cat([torch.arange(len(before)), torch.arange(len(after))])
    logits = released_logits(state, torch.cat([before, after])[None], positions[None], heads=1)[0]
    of_codes = logits[-1025:-1, :8192]
    chosen = of_codes.gather(1, high.flatten()[:, None])[:, 0]
    assert float((of_codes.amax(1) - chosen).max()) < 1e-4
    assert of_codes.argmax(1).unique().numel() > 1, "one code throughout would prove little"


def test_pictures_are_ranked_by_the_one_captioner_that_there_is(pipe: Pipeline) -> None:
    codes = torch.randint(8192, (2, 32, 32), generator=torch.Generator().manual_seed(4))
    best = pipe.rank("a cat", list(codes))
    assert sorted(each.index for each in best) == [0, 1]
    assert best[0].caption_loss <= best[1].caption_loss


def test_the_folder_says_what_it_is_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((home / "super-resolution" / "config.json").read_text())
    assert config["task"] == "super-resolution"
    assert (config["template"]["grid_rows"], config["template"]["released"]) == (16, True)
    assert (
        main(["convert", str(home / "base"), str(home / "back"), "--to", "released", "--task", "captioning"])
        == 2
    )
    assert "--task does not apply" in capsys.readouterr().err
    assert not (home / "back").exists()
