"""Small data sets and tokenizers made up for tests."""

import hashlib
import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cogview.data.shards import TokenKind, write_manifest, write_shard
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import TextTokenizer
from cogview.text.training import train_text_tokenizer

SIZE_PIXELS = 16


def picture(number: int, size_pixels: int = SIZE_PIXELS) -> Image.Image:
    """Return a picture of coloured squares, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size_pixels, size_pixels), Image.Resampling.NEAREST)


def png(number: int, size_pixels: int = SIZE_PIXELS) -> bytes:
    """Return the file of a picture."""
    buffer = io.BytesIO()
    picture(number, size_pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_image_folder(folder: Path, texts: Sequence[Sequence[str]], **fields: Any) -> Path:
    """Write pictures 0, 1, ... with these captions and fields."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, captions in enumerate(texts):
        name = f"images/{number}.png"
        (folder / name).write_bytes(png(number))
        lines.append(json.dumps({"file_name": name, "texts": captions, **fields}, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class MeanTokenizer:
    """An image tokenizer whose codes are mean brightnesses of 4x4 pixels, 0 to 15."""

    fingerprint = "00112233aabbccdd"
    dtype = torch.float32
    num_codes = 16
    device = torch.device("cpu")

    def encode(self, images: Tensor) -> Tensor:
        means = F.avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]
        return ((means + 1) / 2 * 15).round().long()


def small_text_tokenizer(folder: Path) -> TextTokenizer:
    """Train a text tokenizer on a few words."""
    path = folder / "text.model"
    texts = ["一只猫在红色背景上", "a cat on a red background", "two dogs", "一个苹果"] * 4
    train_text_tokenizer(texts, path, TextTokenizerConfig(num_pieces=320))
    return TextTokenizer.from_file(path)


def digest_of(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def write_tokens(
    folder: Path,
    pictures: Sequence[tuple[np.ndarray, Sequence[Sequence[int]]]],
    pairs_per_shard: int = 100,
    num_codes: int = 65_536,
    num_pieces: int = 50_000,
    image_tokenizer: str = "i",
) -> Path:
    """Write token shards of pictures, each its codes and the pieces of its captions."""
    shards = [
        write_shard(
            folder / f"tokens-{start:05d}.safetensors",
            np.stack([codes for codes, _ in some]).astype(np.uint16),
            [captions for _, captions in some],
        )
        for start in range(0, len(pictures), pairs_per_shard)
        if (some := pictures[start : start + pairs_per_shard])
    ]
    side = int(len(pictures[0][0]) ** 0.5)
    kind = TokenKind(
        image_tokenizer=image_tokenizer,
        text_tokenizer="t",
        grid=(side, side),
        num_codes=num_codes,
        num_pieces=num_pieces,
    )
    write_manifest(folder, kind, shards, {})
    return folder


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process that has imported all it needs before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cogview.data.tokenization", "picture_folders"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process
