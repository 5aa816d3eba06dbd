"""The sampling run of an evaluation: draws and scores candidates, part by part, and keeps them."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from cogview.data.ranks import Ranks
from cogview.evaluation.caption_set import AskedPicture, fingerprint_of
from cogview.evaluation.clip import FitScorer
from cogview.evaluation.sharded_array import ShardedArray
from cogview.generation.devices import device_of_rank
from cogview.generation.loading import load
from cogview.generation.options import CodeOptions
from cogview.generation.pipeline import Pipeline
from cogview.image.pixels import tensor_to_images
from cogview.models.weights import fingerprint_of_transformer
from cogview.resumable import ResumableWork
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.evaluation_options import AdaptedCandidateOptions
from cogview.runs.progress_bar import progress_bar

_PICTURES_PER_SHARD = 64
_PICTURES_AT_ONCE = 32


def open_model(options: AdaptedCandidateOptions, ranks: Ranks) -> tuple[Pipeline, str | None, str | None]:
    """Return the model that was asked for, and the names of the adapter and the captioner that were.

    Of several processes on a machine, each takes a GPU of its own.
    """
    pipeline = load(options.model, device_of_rank(options.device, ranks), options.dtype)
    adapter = take_adapter(pipeline, "adapter", options.adapter)
    return pipeline, adapter, take_adapter(pipeline, "captioner", options.captioner)


def drawn_by(pipeline: Pipeline, adapter: str | None) -> dict[str, Any]:
    """Return all that codes depend on of who draws them, as plain data."""
    return {
        "transformer": _fingerprint(pipeline, adapter),
        "text_tokenizer": pipeline.text_tokenizer.fingerprint,
        "image_tokenizer": pipeline.image_tokenizer.fingerprint,
        "device": pipeline.device.type,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
    }


def _fingerprint(pipeline: Pipeline, adapter: str | None) -> str:
    transformer = pipeline.transformer if adapter is None else pipeline.adapters[adapter].transformer
    return fingerprint_of_transformer(transformer.state_dict())


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Candidates of each caption, drawn and scored in shards that a folder keeps.

    Candidate j of caption i has the seed `seed + i * candidates + j`: no two pictures share their random numbers.

    Args:
        kind: of evaluation: format and version of its files.
        options: how many, how boldly, and the folder.
        pipeline: draws.
        adapter: to draw with; None for the model itself.
        asked: the captions.
        ranks: this process among those that share the work.
    """

    kind: Mapping[str, Any]
    options: AdaptedCandidateOptions
    pipeline: Pipeline
    adapter: str | None
    asked: Sequence[AskedPicture]
    ranks: Ranks

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """How boldly, with the model's own numbers where none were asked for."""
        return asdict(self.pipeline.drawer.sampling(CodeOptions(**self.options.sampling())))

    def fingerprint(self, adapter: str | None) -> str:
        """Return what names the weights of the model, or of one of its adapters."""
        return _fingerprint(self.pipeline, adapter)

    @cached_property
    def work(self) -> ResumableWork:
        """All that the codes depend on, and the folder, made or found to be begun for the same.

        Raises:
            UsageError: the folder holds something else, or there is no such sampling.
            CogViewError: it cannot be written.
        """
        settings = {
            **self.kind,
            "captions": fingerprint_of(self.asked),
            "num_captions": len(self.asked),
            "candidates": self.options.candidates,
            "seed": self.options.seed,
            **self.sampling,  # what cannot be drawn with is refused before the folder keeps it
            **drawn_by(self.pipeline, self.adapter),
        }
        return ResumableWork(self.options.out, settings)

    def draw(self, estimated: Callable[[float], None]) -> None:
        """Draw what is this process's share and not there yet.

        Args:
            estimated: called once with the seconds that the rest will take, when the first shard is done.
        """
        num = self.options.candidates

        def codes_of(items: range) -> np.ndarray:
            codes = self.pipeline.generate_codes(
                [self.asked[item].text for item in items],
                num,
                [self.options.seed + item * num for item in items],
                adapter=self.adapter,
                **self.sampling,
            )
            return codes.numpy().astype(np.int32)

        self._filled("codes", "drawing", codes_of, estimated)

    def caption_losses(self, captioner: str) -> ShardedArray:
        """Compute CapLoss of what this process has drawn; return where that of all candidates is kept."""
        chosen = self.pipeline.model.caption_model(captioner)
        tokenizer = self.pipeline.text_tokenizer
        codes = self._array("codes")

        def losses_of(items: range) -> np.ndarray:
            drawn = codes.read(items.start // codes.rows_per_shard).astype(np.int64)
            pieces = [np.asarray(tokenizer.encode(self.asked[item].text), dtype=np.int64) for item in items]
            pairs = [(said, each) for said, row in zip(pieces, drawn, strict=True) for each in row]
            return chosen.losses(pairs).reshape(len(items), self.options.candidates)

        return self._filled(f"scores/caption_loss-{self.fingerprint(captioner)}", "ranking", losses_of)

    def fits(self, scorer: FitScorer, fingerprint: str) -> ShardedArray:
        """Score what this process has drawn by another judge; return where the scores of all candidates are kept.

        Args:
            scorer: the judge, which is asked with the captions that translations were made of.
            fingerprint: of its weights.
        """
        codes = self._array("codes")

        def fits_of(items: range) -> np.ndarray:
            rows = codes.read(items.start // codes.rows_per_shard).astype(np.int64)
            return np.stack(
                [
                    scorer(self.asked[item].original, list(self._decoded(row)))
                    for item, row in zip(items, rows, strict=True)
                ]
            )

        return self._filled(f"scores/{scorer.name}-{fingerprint}", f"asking {scorer.name}", fits_of)

    def await_all(self, array: ShardedArray | None = None) -> None:
        """Wait for what the other processes are at."""
        kept = array or self._array("codes")
        if self.ranks.num_ranks == 1:
            assert not kept.missing(), "nobody else is at work"
            return
        with progress_bar("waiting for the other processes", "parts") as move:
            kept.await_all(lambda missing: move(kept.num_shards - missing, kept.num_shards))

    def pictures(
        self, captions: Int64[np.ndarray, "m"], candidates: Int64[np.ndarray, "m"]
    ) -> Iterator[Image.Image]:
        """Yield candidates of captions, which all are there, in this order."""
        kept = self._array("codes")
        shard, rows = -1, np.empty(0)
        waiting: list[np.ndarray] = []
        for caption, candidate in zip(captions.tolist(), candidates.tolist(), strict=True):
            if caption // kept.rows_per_shard != shard:
                shard = caption // kept.rows_per_shard
                rows = kept.read(shard).astype(np.int64)
            waiting.append(rows[caption - kept.rows(shard).start, candidate])
            if len(waiting) == _PICTURES_AT_ONCE:
                yield from self._decoded(np.stack(waiting))
                waiting = []
        if waiting:
            yield from self._decoded(np.stack(waiting))

    def _decoded(self, codes: np.ndarray) -> Iterator[Image.Image]:
        tokenizer = self.pipeline.image_tokenizer
        for start in range(0, len(codes), _PICTURES_AT_ONCE):
            some = torch.from_numpy(codes[start : start + _PICTURES_AT_ONCE])
            yield from tensor_to_images(tokenizer.decode(some.to(tokenizer.device)))

    def _array(self, name: str) -> ShardedArray:
        return ShardedArray(
            work=self.work,
            name=name,
            num_rows=len(self.asked),
            rows_per_shard=max(4, _PICTURES_PER_SHARD // self.options.candidates),
        )

    def _filled(
        self,
        name: str,
        what: str,
        rows_of: Callable[[range], np.ndarray],
        estimated: Callable[[float], None] = lambda seconds: None,
    ) -> ShardedArray:
        """Return an array with the shards of this process, and tell of how many pictures are done."""
        array, num = self._array(name), self.options.candidates
        with progress_bar(what, "pictures") as move:
            array.fill(
                rows_of,
                self.ranks,
                progress=lambda done, num_rows: move(done * num, num_rows * num),
                estimated=estimated,
            )
        return array


@contextmanager
def goes_on(folder: Path) -> Iterator[None]:
    """Say, when the work within is stopped, where what is done of it lies."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"Stopped. What is drawn lies in {folder}; the same command goes on."
        ) from stop


def say_duration(what: str, seconds: float) -> None:
    """Say on stderr how long something will take."""
    minutes = seconds / 60
    spoken = f"{seconds:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
    print(
        f"{what} will take about {spoken if minutes < 120 else f'{minutes / 60:.1f} hours'}", file=sys.stderr
    )
