"""How fast pictures become codes and codes pictures: the released architecture written plainly, and ours.

    python bench/vqvae.py               # about six minutes on 2 cores
    python bench/vqvae.py --quick       # a self-test at a tiny shape that writes nothing

Wanted of ours, in the faster of its precisions: encoding 2.5 times the plain one's speed, decoding 1.8 times. The
weights are random, which changes no speed; so how far bfloat16 changes codes and pictures is asked of trained
tokenizers, the bundled one and those of --tokenizers, on pictures of --pictures.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import Float, Int64
from torch import Tensor, nn

import cogview
from cogview.data.image_array import ImageArray
from cogview.evaluation.reconstruction import mean_squared_error, psnr
from cogview.files import atomic_write_json
from cogview.image.config import VQVAEConfig
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE
from cogview.models.config import BUNDLED_FOLDER
from environment import RESULTS, describe, seconds_of

WANTED = {"encode": 2.5, "decode": 1.8}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Plain:
    """The released architecture as one would write it down: layers in a row, every distance formed, fp32.

    Args:
        ours: the tokenizer whose weights it takes.
    """

    def __init__(self, ours: ImageTokenizer):
        config = ours.config
        assert isinstance(config, VQVAEConfig)
        widths = config.encoder_channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, widths[0], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[1], widths[2], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[2], config.code_size, 1),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(config.code_size, widths[0], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(widths[0], widths[1], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(widths[1], widths[2], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[2], 3, 1),
        )
        model = ours.autoencoder
        self.encoder.load_state_dict({k: v.contiguous() for k, v in model.encoder.state_dict().items()})
        self.decoder.load_state_dict({k: v.contiguous() for k, v in model.decoder.state_dict().items()})
        self.encoder.to(ours.device)
        self.decoder.to(ours.device)
        self.codebook = model.quantizer.embed.T.contiguous()  # [d v], as in the release
        self.mean, self.std = model.pixel_mean, model.pixel_std

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Return the codes of images in [-1, 1]."""
        vectors = self.encoder((images - self.mean) / self.std).permute(0, 2, 3, 1)
        rows = vectors.reshape(-1, vectors.shape[-1])
        distances = rows.pow(2).sum(1, keepdim=True) - 2 * rows @ self.codebook + self.codebook.pow(2).sum(0)
        return distances.argmin(1).view(vectors.shape[:3])

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b c y x"]:
        """Return the images of codes, in [-1, 1]."""
        decoded = self.decoder(nn.functional.embedding(codes, self.codebook.T).permute(0, 3, 1, 2))
        return (decoded * self.std + self.mean).clamp(-1, 1)


def initialise(tokenizer: ImageTokenizer, images: Float[Tensor, "b c y x"]) -> None:
    """Lay the codebook into what the encoder makes of pictures, so that distances are as in a trained model."""
    model = tokenizer.autoencoder
    vectors = model.encoder((images - model.pixel_mean) / model.pixel_std)
    rows = vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1])
    model.quantizer.embed.copy_(rows[torch.randint(len(rows), (tokenizer.num_codes,))])


@torch.no_grad()
def agreement(path: Path, pictures: Path, size_pixels: int, num_pictures: int, device: str) -> dict[str, Any]:
    """Return how far a trained tokenizer in bfloat16 agrees with itself in float32.

    Returns:
        `codes`, the share of equal codes; and of pictures decoded from the same codes `psnr_db` of the one by the other
        and `largest_difference`, in 8-bit levels.
    """
    pixels = ImageArray.from_folder(pictures, size_pixels, "held-out-object").pixels[:num_pictures]
    images = as_float(torch.tensor(pixels).permute(0, 3, 1, 2)).to(device)
    exact, rounded = (cogview.load_image_tokenizer(path, device, dtype) for dtype in PRECISIONS.values())
    codes = exact.encode(images)
    drawn, roughly_drawn = exact.decode(codes), rounded.decode(codes)
    return {
        "num_codes": exact.num_codes,
        "num_pictures": len(images),
        "codes": float((rounded.encode(images) == codes).double().mean()),
        "psnr_db": float(psnr(mean_squared_error(drawn, roughly_drawn).mean())),
        "largest_difference": float((drawn - roughly_drawn).abs().max()) * 127.5,
    }


def main(
    *,
    quick: bool = False,
    rounds: int = 5,
    batch_size: int = 8,
    size_pixels: int = 256,
    pictures: Path | None = None,
    tokenizers: tuple[Path, ...] = (),
    trained_size_pixels: int = 128,
    num_pictures: int = 256,
    device: str = "cpu",
    out: str = "",
) -> None:
    """Measure, print tables and write the figures as JSON.

    Args:
        quick: a tiny shape, only to see that everything runs and that plain and ours make the same.
        rounds: of all systems, in turns; medians are reported.
        batch_size: pictures at once.
        size_pixels: side of the pictures whose speed is measured.
        pictures: a built default data set, for what bfloat16 changes; nothing is asked of it if not given.
        tokenizers: trained ones, beside the bundled one.
        trained_size_pixels: side of the pictures that they have learnt from.
        num_pictures: held-out ones to compare by.
        device: "cpu" or "cuda".
        out: name of the result; the device's kind by default.
    """
    config = VQVAEConfig()
    if quick:
        rounds, batch_size, size_pixels, num_pictures = 1, 2, 32, 8
        config = VQVAEConfig(
            num_codes=64, code_size=16, encoder_channels=(8, 8, 8), decoder_channels=(8, 8, 8)
        )
    place = torch.device(device)
    environment = describe(place)
    torch.manual_seed(0)
    weights = VQVAE(config).to(place)
    ours = {name: ImageTokenizer(weights, dtype) for name, dtype in PRECISIONS.items()}
    images = torch.rand(batch_size, 3, size_pixels, size_pixels, device=place) * 2 - 1
    with torch.no_grad():
        initialise(ours["fp32"], images)
    systems = {"plain": Plain(ours["fp32"])} | ours
    codes = systems["plain"].encode(images)
    # The same weights: codes whose distances are equal to rounding may differ, no more.
    assert (ours["fp32"].encode(images) == codes).double().mean() > 0.999
    torch.testing.assert_close(ours["fp32"].decode(codes), systems["plain"].decode(codes), atol=1e-4, rtol=0)

    work: dict[tuple[str, str], Callable[[], Tensor]] = {}
    for name, system in systems.items():
        work["encode", name] = lambda system=system: system.encode(images)
        work["decode", name] = lambda system=system: system.decode(codes)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for number in range(-1, rounds):  # the first round prepares kernels and memory, and does not count
        for key, do in work.items():
            taken = seconds_of(do, place)
            if number >= 0:
                seconds[key].append(taken)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    rates = {key: batch_size / statistics.median(times) for key, times in seconds.items()}
    figures: dict[str, Any] = {
        task: {
            "images_per_second": {name: rates[task, name] for name in systems},
            "ratio": {name: rates[task, name] / rates[task, "plain"] for name in ours},
            "wanted": WANTED[task],
        }
        for task in WANTED
    }
    print("| | plain, images/s | ours, fp32 | ours, bf16 | wanted |\n|---|---|---|---|---|")
    for task in WANTED:
        print(
            f"| {task} | {rates[task, 'plain']:.1f} "
            + "".join(f"| {rates[task, name]:.1f} ({figures[task]['ratio'][name]:.2f}x) " for name in ours)
            + f"| {WANTED[task]}x |"
        )
    if pictures is not None:
        found = {
            path.name: agreement(path, pictures, trained_size_pixels, num_pictures, device)
            for path in (BUNDLED_FOLDER, *tokenizers)
        }
        figures["bf16_agreement"] = found
        print(
            "| bf16 beside fp32 | codes | equal codes | pictures, dB | largest difference |\n|---|---|---|---|---|"
        )
        for name, each in found.items():
            print(
                f"| {name} | {each['num_codes']:,} | {each['codes']:.2%} | {each['psnr_db']:.1f} "
                f"| {each['largest_difference']:.1f} of 255 |"
            )
    if not quick:
        path = RESULTS / f"vqvae-{out or device}.json"
        shape = {"batch_size": batch_size, "size_pixels": size_pixels, "rounds": rounds}
        atomic_write_json(path, {"benchmark": "vqvae", "environment": environment} | shape | figures)
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
