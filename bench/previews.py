"""What growing pictures cost, and how they look.

    python bench/previews.py [--rounds 5] [--picture docs/images/previews.png]

The same pictures are drawn with and without previews in turns, in one process, whose processor time is measured, so
that other work on the machine counts little. The picture shows the first seeds of one
text, each as it was first shown with a quarter, a half and three quarters of its codes drawn, and finished.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

import cogview
from cogview import PicturePreview, Pipeline, PreviewOptions
from cogview.files import atomic_write_json
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from environment import RESULTS, describe

TEXT = "a red cat above a dog"
SHARES = (0.25, 0.5, 0.75)


def seconds_of(pipe: Pipeline, num: int, previews: PreviewOptions | None) -> tuple[float, int]:
    """Return how long pictures take that are decoded as they are by default, and how many previews came."""
    start, num_shown = time.process_time(), 0
    for event in pipe.stream(TEXT, num, previews=previews):
        num_shown += isinstance(event, PicturePreview)
    return time.process_time() - start, num_shown


def measure(pipe: Pipeline, num: int, rounds: int) -> dict[str, Any]:
    """Return medians with and without previews."""
    ways = {"none": None, "default": PreviewOptions(), "all": PreviewOptions(per_second=1000, max_share=1)}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, previews in ways.items():
            found[name].append(seconds_of(pipe, num, previews))
    seconds = {name: statistics.median(each for each, _ in runs) for name, runs in found.items()}
    row = {
        "pictures": num,
        "seconds": seconds,
        "previews": {name: statistics.median(each for _, each in runs) for name, runs in found.items()},
        "default_by_none": seconds["default"] / seconds["none"],
    }
    print(
        f"{num:>3} pictures: {seconds['none']:.2f} s; with previews {seconds['default']:.2f} s "
        f"({row['previews']['default']:.0f} of them), with all that can be {seconds['all']:.2f} s "
        f"({row['previews']['all']:.0f})"
    )
    return row


def growing(pipe: Pipeline, num: int) -> Image.Image:
    """Return a sheet of the first seeds, each a row: as far as it was drawn, and finished."""
    rows: dict[int, list[Image.Image]] = {seed: [] for seed in range(num)}
    num_codes = pipe.template.num_codes_per_image
    for event in pipe.stream(
        TEXT,
        num,
        previews=PreviewOptions(per_second=1000, max_share=1),
        size_pixels=pipe.model.encoded_pixels,
    ):
        if isinstance(event, PicturePreview):
            row, share = rows[event.seed], float((event.codes >= 0).sum()) / num_codes
            if len(row) < len(SHARES) and share >= SHARES[len(row)]:
                row.append(event.image)
        else:
            rows[event.picture.seed].append(event.picture.image)
    return contact_sheet([[image for row in rows.values() for image in row]], [TEXT])


def main(*, rounds: int = 5, batches: tuple[int, ...] = (1, 4, 16), picture: Path | None = None) -> None:
    """Measure, and write the figures as JSON.

    Args:
        rounds: of each way, in turns; medians are reported. With 0, nothing is measured.
        batches: numbers of pictures.
        picture: where the sheet of growing pictures is written, if it is.
    """
    environment = describe(torch.device("cpu"))
    pipe = cogview.load(device="cpu")
    pipe.generate(TEXT, 2, seed=99)  # weights are prepared, and what guesses are worth is learnt
    if rounds:
        rows = [measure(pipe, num, rounds) for num in batches]
        atomic_write_json(
            RESULTS / "previews.json", {"environment": environment, "rounds": rounds, "batches": rows}
        )
    if picture is not None:
        save_sheet(growing(pipe, 2), picture)


if __name__ == "__main__":
    tyro.cli(main)
