"""A repository of the hub is converted after its size was told, and its checksums are kept."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import cogview
from cogview.cli.main import main
from plain_vqgan import DIFFUSERS, LLAMAGEN, Shape, random_state
from rudalle import CODES, HEADS, checkpoint
from tiny import tiny_text_tokenizer

SHAPE = Shape(factors=(1, 1), attention_grids=(), num_blocks=1)


@dataclass
class Hub:
    """A repository, and the names of what was downloaded from it."""

    folder: Path
    cache: Path
    downloaded: list[str]
    is_honest: bool = True

    def model_info(self, repository: str, files_metadata: bool) -> SimpleNamespace:
        if repository != "someone/model":
            raise RuntimeError("404\nnot found")
        assert files_metadata
        siblings = [self._sibling(path) for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return SimpleNamespace(sha="0123abc", siblings=siblings)

    def _sibling(self, path: Path) -> SimpleNamespace:
        data = path.read_bytes()
        lfs = SimpleNamespace(sha256=hashlib.sha256(data if self.is_honest else b"").hexdigest())
        name = path.relative_to(self.folder).as_posix()
        return SimpleNamespace(rfilename=name, size=len(data), lfs=None if path.suffix == ".json" else lfs)

    def download(self, repository: str, filename: str, revision: str) -> str:
        assert (repository, revision) == ("someone/model", "0123abc")
        self.downloaded.append(filename)
        (self.cache / filename).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / filename, self.cache / filename)
        return str(self.cache / filename)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(folder=tmp_path / "hub", cache=tmp_path / "cache", downloaded=[])
    made.folder.mkdir()
    made.cache.mkdir()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", made.download)
    monkeypatch.chdir(tmp_path)
    return made


def test_nothing_is_downloaded_without_being_asked(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "someone/model", "out"]) == 1
    assert "--download" in capsys.readouterr().err
    assert not hub.downloaded


def test_a_file_is_fetched_with_its_size_told_and_its_checksum_kept(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": random_state(LLAMAGEN, SHAPE)}, hub.folder / "vq_ds16_c2i.pt")
    (hub.folder / "other.pt").write_text("another")
    assert main(["convert", "someone/model:vq_ds16_c2i.pt", "out", "--download", "--json"]) == 0
    said = capsys.readouterr()
    assert "vq_ds16_c2i.pt" in said.err
    assert " MB" in said.err
    facts = json.loads(said.out)
    digest = hashlib.sha256((hub.folder / "vq_ds16_c2i.pt").read_bytes()).hexdigest()
    wanted = {"repository": "someone/model", "revision": "0123abc", "sha256": {"vq_ds16_c2i.pt": digest}}
    assert facts | wanted == facts
    kept = json.loads(Path("out/config.json").read_text())["source"]
    assert kept | wanted == kept
    assert hub.downloaded == ["vq_ds16_c2i.pt"]


def test_a_folder_is_fetched_with_its_config(hub: Hub) -> None:
    (hub.folder / "vqvae").mkdir()
    state = random_state(DIFFUSERS, SHAPE)
    save_file(state, hub.folder / "vqvae" / "diffusion_pytorch_model.safetensors")
    save_file(state, hub.folder / "vqvae" / "diffusion_pytorch_model.fp16.safetensors")
    config = {
        "_class_name": "VQModel",
        "block_out_channels": [32, 32],
        "latent_channels": 24,
        "vq_embed_dim": 12,
    }
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    (hub.folder / "vqvae" / "config.json").write_text(json.dumps(config | blocks | {"num_vq_embeddings": 40}))
    words = ["convert", "someone/model:vqvae", "out", "--download", "--pixel-range", "symmetric"]
    assert main(words) == 0
    assert sorted(hub.downloaded) == ["vqvae/config.json", "vqvae/diffusion_pytorch_model.safetensors"]


def test_of_a_larger_model_only_the_tokenizers_files_are_fetched(hub: Hub) -> None:
    state = {f"gen_vision_model.{name}": each for name, each in random_state(LLAMAGEN, SHAPE).items()}
    save_file(state, hub.folder / "model-1.safetensors")
    save_file({"language_model.a": torch.ones(9)}, hub.folder / "model-2.safetensors")
    weight_map = dict.fromkeys(state, "model-1.safetensors") | {"language_model.a": "model-2.safetensors"}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert main(["convert", "someone/model", "out", "--download"]) == 0
    assert hub.downloaded == ["model.safetensors.index.json", "model-1.safetensors"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["someone/model:lost.pt", "out"], 1, "someone/model:lost.pt has no file of weights"),
        (
            ["someone/lost", "out"],
            1,
            "someone/lost was not downloaded, the Hugging Face hub did not send it (404)",
        ),
        (["a/b/c", "out"], 2, "OWNER/NAME:FILE"),
        (["hub/a.pt", "out"], 2, "leave it out"),
        (["someone/model:a.pt", "out"], 1, "SHA-256 is not that of the hub"),
        (["someone/model", "out", "--to", "int8"], 2, "leave --to out"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    hub: Hub, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    (hub.folder / "a.pt").write_text("damaged on its way")
    hub.is_honest = False
    assert main(["convert", *words, "--download"]) == code
    complaint = capsys.readouterr().err.splitlines()
    assert said in complaint[-1]
    assert all("downloading" in line for line in complaint[:-1])
    assert not Path("out").exists()


def test_one_command_fetches_a_whole_model(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The transformer and both of its tokenizers, the image tokenizer as another project's checkpoint."""
    words = tiny_text_tokenizer(hub.folder)
    state = checkpoint(rudolph=True, pieces=words.num_pieces)
    names = ("image_embeddings.weight", "to_logits.1.weight", "to_logits.1.bias")
    num_codes = 40  # those of the image tokenizer
    for name in names:
        rows = state[name]
        state[name] = torch.cat([rows, rows[-1:].expand(num_codes - CODES, *rows.shape[1:])])
    torch.save(state, hub.folder / "pytorch_model.bin")
    torch.save({"model": random_state(LLAMAGEN, SHAPE)}, hub.folder / "vqgan.pt")
    tokenizers = [
        "--text-tokenizer",
        "someone/model:text.model",
        "--image-tokenizer",
        "someone/model:vqgan.pt",
    ]
    command = ["convert", "someone/model:pytorch_model.bin", "out", "--download", *tokenizers]
    assert main([*command, "--num-heads", str(HEADS)]) == 0
    assert hub.downloaded == ["pytorch_model.bin", "text.model", "vqgan.pt"]
    assert capsys.readouterr().err.count("downloading") == 3
    card = Path("out/README.md").read_text()
    for name in hub.downloaded:
        digest = hashlib.sha256((hub.folder / name).read_bytes()).hexdigest()
        assert f"`{name}` (SHA-256 {digest})" in card
    assert "someone/model at 0123abc" in card
    picture = cogview.load("out").generate("a cat", seed=1, keep=1, num_candidates=2)[0]
    assert picture.caption_loss is not None
    # A checkpoint's file in the local folder will do as well.
    local = ["convert", str(hub.folder / "pytorch_model.bin"), "again", "--image-tokenizer"]
    assert main([*local, str(hub.folder / "vqgan.pt"), "--num-heads", str(HEADS)]) == 0
    assert cogview.load("again").image_tokenizer.num_codes == num_codes
