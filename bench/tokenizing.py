"""How fast `cogview tokenize` is against its encoder alone, which is fed with pictures that lie decoded in memory.

    python bench/tokenizing.py                # about five minutes on 2 cores
    python bench/tokenizing.py --quick        # a self-test at a tiny shape
    python bench/tokenizing.py --device cuda --num-pictures 20000 --batch-size 256 --num-workers 14

Wanted: nine tenths of the encoder's speed. The encoder has the released architecture and random weights; pictures are
JPEGs of 512 x 384 pixels in tars. Both take turns in one process, with the same threads; the workers that decode are
further processes, and starting them is timed apart.
"""

import statistics
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from cogview.data.decoding import decode_square
from cogview.data.pairs import CaptionedImage
from cogview.data.shard_maker import encode_pixels
from cogview.data.shards import TokenShards
from cogview.data.tars import Tars
from cogview.data.tokenization import tokenize_folder
from cogview.files import atomic_write_json
from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE
from cogview.runs.tokenizers import open_text_tokenizer
from cogview.text.tokenizer import TextTokenizer
from environment import RESULTS, describe, seconds_of

WANTED = 0.9
NUM_TARS = 4


def write_pictures(folder: Path, num_pictures: int) -> None:
    """Write tars of photographs of nothing: soft shapes with some grain, about as large as real ones."""
    random = np.random.default_rng(0)
    for number in range(NUM_TARS):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for index in range(number, num_pictures, NUM_TARS):
                shapes = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
                    (512, 384)
                )
                grain = random.normal(0, 6, (384, 512, 1))
                pixels = (np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)
                file = BytesIO()
                Image.fromarray(pixels).save(file, "JPEG", quality=90)
                for ending, data in (
                    ("jpg", file.getvalue()),
                    ("txt", f"Picture {index} of nothing.".encode()),
                ):
                    info = tarfile.TarInfo(f"{index:09d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, BytesIO(data))


def decoded(folder: Path, size_pixels: int) -> np.ndarray:
    """Return the pictures of the tars as squares, in order."""
    entries = [entry for entry in Tars(folder) if isinstance(entry, CaptionedImage)]
    return np.stack([decode_square(entry, size_pixels) for entry in entries])


def from_memory(tokenizer: ImageTokenizer, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the codes of pictures that lie in memory."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([encode_pixels(tokenizer, pixels[start : start + batch_size]) for start in starts])


class Pipeline:
    """Runs the whole of it, and tells the start from the rest.

    Args:
        source: the tars.
        tokenizer: makes the codes.
        words: makes the pieces.
        options: of `tokenize_folder`.
    """

    def __init__(
        self, source: Path, tokenizer: ImageTokenizer, words: TextTokenizer, options: dict[str, int]
    ) -> None:
        self._source, self._tokenizer, self._words, self._options = source, tokenizer, words, options

    def run(self, out: Path) -> tuple[float, float]:
        """Return the seconds until the first batch is done, and the pictures a second from then on."""
        moments: list[tuple[float, int]] = []
        start = time.perf_counter()
        tokenize_folder(
            self._source,
            out,
            self._tokenizer,
            self._words,
            progress=lambda num_done, _: moments.append((time.perf_counter(), num_done)),
            **self._options,
        )
        end = time.perf_counter()
        (first, num_first), (_, num_all) = moments[0], moments[-1]
        return first - start, (num_all - num_first) / (end - first)


def main(
    *,
    quick: bool = False,
    rounds: int = 3,
    num_pictures: int = 96,
    size_pixels: int = 256,
    batch_size: int = 16,
    num_workers: int = 1,
    device: str = "cpu",
    out: str = "",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        quick: a tiny shape and few pictures, only to see that everything runs and that both make the same codes.
        rounds: runs of each, in turns; medians are reported.
        num_pictures: to tokenize; a multiple of four.
        size_pixels: side of the squares that are encoded.
        batch_size: pictures encoded at once.
        num_workers: processes that decode.
        device: "cpu" or "cuda".
        out: name of the result; the device's kind by default.
    """
    config = VQVAEConfig()
    if quick:
        rounds, num_pictures, size_pixels, batch_size = 1, 24, 32, 2
        config = VQVAEConfig(
            num_codes=64,
            code_size=16,
            encoder_channels=(8, 8, 8),
            decoder_channels=(8, 8, 8),
        )
    torch.manual_seed(0)
    place = torch.device(device)
    environment = describe(place)
    tokenizer = ImageTokenizer(VQVAE(config).to(place))
    options = {"size_pixels": size_pixels, "batch_size": batch_size, "num_workers": num_workers}
    alone: list[float] = []
    whole: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "tars").mkdir()
        write_pictures(folder / "tars", num_pictures)
        pixels = decoded(folder / "tars", size_pixels)
        pipeline = Pipeline(folder / "tars", tokenizer, open_text_tokenizer(None), options)
        from_memory(tokenizer, pixels[: 2 * batch_size], batch_size)  # the first times are slower
        for number in range(rounds):
            seconds = seconds_of(lambda: from_memory(tokenizer, pixels, batch_size), place)
            alone.append(len(pixels) / seconds)
            whole.append(pipeline.run(folder / f"tokens-{number}"))
            print(f"round {number + 1}: {alone[-1]:.1f} and {whole[-1][1]:.1f} pictures/s", file=sys.stderr)
        shards = TokenShards(folder / "tokens-0")
        made = np.stack([shards.codes(index) for index in range(len(shards))])
        expected = from_memory(tokenizer, pixels, batch_size).reshape(len(pixels), -1)
        # On a GPU the last batch of a tar, a smaller one, may have other neighbours of a code now and then.
        assert (made == expected).mean() > (0.99 if device == "cuda" else 0.9999999)
    rate_alone, rate_whole = statistics.median(alone), statistics.median(rate for _, rate in whole)
    figures = {
        "encoder_pictures_per_second": rate_alone,
        "pipeline_pictures_per_second": rate_whole,
        "share_of_the_encoder": rate_whole / rate_alone,
        "wanted_share": WANTED,
        "seconds_to_the_first_batch": statistics.median(seconds for seconds, _ in whole),
    }
    print("| encoder from memory | whole pipeline | share | wanted |\n|---|---|---|---|")
    print(f"| {rate_alone:.1f}/s | {rate_whole:.1f}/s | {rate_whole / rate_alone:.0%} | {WANTED:.0%} |")
    if not quick:
        path = RESULTS / f"tokenizing-{out or device}.json"
        result = {
            "benchmark": "tokenizing",
            "environment": environment,
            "num_pictures": num_pictures,
            "rounds": rounds,
            **options,
            "figures": figures,
        }
        atomic_write_json(path, result)
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
