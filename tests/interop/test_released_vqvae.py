"""A checkpoint of the released layout gives the codes and pixels that the architecture, written plainly, gives."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.image.pixels import image_to_array
from cogview.interop.checkpoint_file import read_state_dict
from cogview.interop.tokenizer_layouts import convert_image_tokenizer, find_layout

CHANNELS, CODE_SIZE, NUM_CODES = 24, 12, 64
MEAN, STD = (0.79093, 0.76271, 0.75340), (0.30379, 0.32279, 0.32800)


def reference() -> tuple[nn.Sequential, torch.Tensor, nn.Sequential]:
    """Return encoder, codebook [d v] and decoder of the release, at a smaller width."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CODE_SIZE, 1),
    )
    decoder = nn.Sequential(
        nn.ConvTranspose2d(CODE_SIZE, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, 3, 1),
    )
    with torch.no_grad():
        codebook = encoder(3 * torch.randn(1, 3, 64, 64)).view(CODE_SIZE, NUM_CODES)
    return encoder, codebook, decoder


def state_dict(prefix: str = "") -> dict[str, torch.Tensor]:
    encoder, codebook, decoder = reference()
    parts = {f"enc_b.blocks.{name}": value for name, value in encoder.state_dict().items()}
    parts |= {f"dec.blocks.{name}": value for name, value in decoder.state_dict().items()}
    parts |= {
        "quantize_t.embed": codebook,
        "quantize_t.cluster_size": torch.ones(NUM_CODES),
        "quantize_t.embed_avg": codebook.clone(),
    }
    return {prefix + name: value for name, value in parts.items()}


def is_released(tensors: dict[str, torch.Tensor]) -> bool:
    found = find_layout(tensors.keys())
    return found is not None and "released in 2021" in found[0].title


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@torch.no_grad()
def test_codes_and_pixels_are_those_of_the_plain_architecture(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "vqvae.pt")
    assert main(["convert", str(tmp_path / "vqvae.pt"), str(tmp_path / "tokenizer")]) == 0
    tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
    assert (tokenizer.num_codes, tokenizer.downsampling_factor) == (NUM_CODES, 8)

    encoder, codebook, decoder = reference()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    # The release's way with pixels: to [0, 1], then by its mean and deviation.
    pixels = torch.from_numpy(np.asarray(picture(), dtype=np.float32) / 255).permute(2, 0, 1)
    vectors = encoder(((pixels - mean) / std)[None]).permute(0, 2, 3, 1)
    distances = torch.cdist(vectors.reshape(-1, CODE_SIZE).double(), codebook.T.double())
    expected = distances.argmin(1).view(1, 4, 6)

    images = torch.from_numpy(image_to_array(picture()))[None]
    codes = tokenizer.encode(images)
    assert torch.equal(codes, expected)
    assert len(codes.unique()) > 5, "codes that are all alike would prove nothing"
    drawn = decoder(codebook.T[expected].permute(0, 3, 1, 2)) * std + mean
    decoded = (tokenizer.decode(codes) + 1) / 2
    torch.testing.assert_close(decoded, drawn.clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"module": state, "iteration": 3}])
def test_it_is_recognised_however_it_was_wrapped(tmp_path: Path, wrap) -> None:
    torch.save(wrap(state_dict("module.")), tmp_path / "vqvae.pt")
    tensors = read_state_dict(tmp_path / "vqvae.pt")
    assert is_released(tensors)
    assert tensors.keys() == state_dict().keys()


@pytest.mark.slow
def test_the_released_sizes_are_read_from_the_weights() -> None:
    def shaped(*shape: int) -> torch.Tensor:
        return torch.zeros(shape)

    tensors = {"quantize_t.embed": shaped(256, 8192)}
    inputs, outputs = (3, 512, 512), (256, 512, 512)
    for index in range(3):
        tensors[f"enc_b.blocks.{2 * index}.weight"] = shaped(512, inputs[index], 4, 4)
        tensors[f"enc_b.blocks.{2 * index}.bias"] = shaped(512)
        tensors[f"dec.blocks.{2 * index}.weight"] = shaped(outputs[index], 512, 4, 4)
        tensors[f"dec.blocks.{2 * index}.bias"] = shaped(512)
    tensors |= {"enc_b.blocks.6.weight": shaped(256, 512, 1, 1), "enc_b.blocks.6.bias": shaped(256)}
    tensors |= {"dec.blocks.6.weight": shaped(3, 512, 1, 1), "dec.blocks.6.bias": shaped(3)}
    tokenizer = convert_image_tokenizer(tensors)
    assert tokenizer is not None
    config = tokenizer.config
    assert config == type(config)(), "the defaults are the release"


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, "bomb.pt")
    with pytest.raises(CogViewError, match="running code"):
        read_state_dict(Path("bomb.pt"))
    assert not Path("touched-by-a-pickle").exists()


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = state_dict() | changes
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a checkpoint", "no file of PyTorch"),
        ({"a": torch.zeros(1)}, "unknown layout \\(1 tensors: a"),
        ({"epoch": 3}, "holds no tensors"),
        (changed(**{"dec.blocks.6.bias": None}), "missing decoder.6.bias"),
        (changed(**{"quantize_t.embed": torch.zeros(5)}), r"quantize_t.embed is \(5,\), wanted 2 axes"),
        (changed(**{"dec.blocks.0.weight": torch.tensor(1.0)}), "dec.blocks.0.weight is \\(\\), wanted 4"),
        (
            changed(**{"enc_b.blocks.0.weight": torch.zeros(0, 3, 4, 4)}),
            "blocks.0.weight is .*, wanted 4 axes",
        ),
        (
            changed(**{"dec.blocks.6.bias": torch.zeros(3).to_sparse()}),
            "blocks.6.bias is float32, sparse_coo",
        ),
        (
            changed(**{"dec.blocks.6.bias": torch.zeros(3, dtype=torch.complex64)}),
            "is complex64",
        ),
        (
            changed(**{"enc_b.blocks.2.bias": torch.zeros(5)}),
            r"encoder.2.bias is \[5\] instead",
        ),
        (changed(**{"enc_t.blocks.0.bias": torch.zeros(5)}), "no tensor enc_t.blocks.0.bias"),
        (changed(**{"dec.blocks.6.bias": torch.full((3,), torch.nan)}), "infinite or NaN"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content, said: str
) -> None:
    path = tmp_path / "vqvae.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert main(["convert", str(path), str(tmp_path / "out")]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert complaint.startswith(f"cogview: error: {path}: ")
    assert re.search(said, complaint)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(state_dict(), tmp_path / "vqvae.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    assert main(["convert", str(tmp_path / "vqvae.pt"), str(tmp_path / "out")]) == 1
    assert "holds diary.txt" in capsys.readouterr().err
    assert (tmp_path / "out" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("has_checksums", [True, False])
def test_damage_inside_a_tensor_is_found_where_there_are_checksums(
    tmp_path: Path, has_checksums: bool
) -> None:
    path = tmp_path / "vqvae.pt"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(has_checksums)
    try:
        torch.save(state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert is_released(read_state_dict(path))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 1 for byte in content[middle : middle + 64])
    path.write_bytes(content)
    if has_checksums:
        with pytest.raises(CogViewError, match="damaged"):
            read_state_dict(path)
    else:
        assert is_released(read_state_dict(path)), "nobody can tell"
