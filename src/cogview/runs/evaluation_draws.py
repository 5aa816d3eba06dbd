"""Sampling of an evaluation: candidates drawn and scored in resumable shards."""

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
    """Return the model, and the names of its adapter and captioner.

    Of several processes on a machine, each takes a GPU of its own.
    """
    pipeline = load(options.model, device_of_rank(options.device, ranks), options.dtype)
    adapter = take_adapter(pipeline, "adapter", options.adapter)
    return pipeline, adapter, take_adapter(pipeline, "captioner", options.captioner)


def model_identity(pipeline: Pipeline, adapter: str | None) -> dict[str, Any]:
    """Return the identity of the model that draws the codes, as plain data."""
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
    """Candidates of each caption, drawn and scored in shards in a folder.

    Candidate j of caption i has the seed `seed + i * candidates + j`, so no two pictures share random numbers.

    Args:
        kind: format and version of the evaluation's files.
        options: candidates, sampling, and the folder.
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
        """Sampling options, with the model's defaults filled in."""
        return asdict(self.pipeline.drawer.sampling(CodeOptions(**self.options.sampling())))

    def fingerprint(self, adapter: str | None) -> str:
        """Return the fingerprint of the model's or an adapter's weights."""
        return _fingerprint(self.pipeline, adapter)

    @cached_property
    def work(self) -> ResumableWork:
        """The folder of shards, and all that the codes depend on.

        Raises:
            UsageError: the folder holds something else, or the sampling options are invalid.
            CogViewError: it cannot be written.
        """
        settings = {
            **self.kind,
            "captions": fingerprint_of(self.asked),
            "num_captions": len(self.asked),
            "candidates": self.options.candidates,
            "seed": self.options.seed,
            **self.sampling,  # invalid options fail before the folder is made
            **model_identity(self.pipeline, self.adapter),
        }
        return ResumableWork(self.options.out, settings)

    def draw(self, estimated: Callable[[float], None]) -> None:
        """Draw this process's missing shards.

        Args:
            estimated: called once with the remaining seconds, after the first shard.
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
        """Compute CapLoss of this process's candidates; return the array of all candidates' losses."""
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
        """Score this process's candidates by another model; return the array of all candidates' scores.

        Args:
            scorer: scores against the original captions where translations were drawn.
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
        """Wait for the other processes' shards."""
        kept = array or self._array("codes")
        if self.ranks.num_ranks == 1:
            assert not kept.missing(), "nobody else is at work"
            return
        with progress_bar("waiting for the other processes", "parts") as move:
            kept.await_all(lambda missing: move(kept.num_shards - missing, kept.num_shards))

    def pictures(
        self, captions: Int64[np.ndarray, "m"], candidates: Int64[np.ndarray, "m"]
    ) -> Iterator[Image.Image]:
        """Yield pictures of these candidates, whose codes are all there, in this order."""
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
        """Return an array with this process's shards, showing progress in pictures."""
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
def resume_hint(folder: Path) -> Iterator[None]:
    """Add where to resume to the message of an interrupted block."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"Stopped. What is drawn lies in {folder}; the same command goes on."
        ) from stop


def say_duration(what: str, seconds: float) -> None:
    """Print an estimated duration to stderr."""
    minutes = seconds / 60
    spoken = f"{seconds:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
    print(
        f"{what} will take about {spoken if minutes < 120 else f'{minutes / 60:.1f} hours'}", file=sys.stderr
    )
