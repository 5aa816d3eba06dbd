"""The sampling run of an evaluation: draws and scores candidates, part by part, and keeps them."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from cogview.errors import CogViewError
from cogview.evaluation.caption_set import AskedPicture, fingerprint_of
from cogview.evaluation.clip import FitScorer
from cogview.evaluation.kept_parts import KeptParts, begin_or_go_on
from cogview.generation.devices import device_of_rank
from cogview.generation.loading import load
from cogview.generation.options import CodeOptions
from cogview.generation.pipeline import Pipeline
from cogview.image.pixels import tensor_to_images
from cogview.models.weights import fingerprint_of_transformer
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.evaluation_options import AdaptedCandidateOptions
from cogview.runs.progress_bar import progress_bar

_PICTURES_PER_PART = 64
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
    """Candidates of each caption, drawn and scored in parts that are kept in a folder.

    Candidate j of caption i has the seed `seed + i * candidates + j`: no two pictures share their random numbers.

    Args:
        options: how many, how boldly, and the folder.
        pipeline: draws.
        adapter: to draw with; None for the model itself.
        asked: the captions.
        ranks: this process among those that share the work.
    """

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

    def begin_or_go_on(self, kind: str, version: int) -> dict[str, Any]:
        """Make the folder, or make sure that what it holds was begun for the same.

        Args:
            kind: of evaluation.
            version: of its files.

        Returns:
            All that the codes depend on, as plain data.

        Raises:
            UsageError: the folder holds something else, or there is no such sampling.
            CogViewError: it cannot be written.
        """
        request = {
            "format": kind,
            "version": version,
            "captions": fingerprint_of(self.asked),
            "num_captions": len(self.asked),
            "candidates": self.options.candidates,
            "seed": self.options.seed,
            **self.sampling,  # what cannot be drawn with is refused before the folder keeps it
            **drawn_by(self.pipeline, self.adapter),
        }
        folder = self.options.out
        try:
            begin_or_go_on(folder, request)
        except OSError as error:
            raise CogViewError(
                f"{folder} cannot be written ({error.strerror}): give another with --out"
            ) from error
        return request

    def draw(self, estimated: Callable[[float], None]) -> None:
        """Draw what is this process's share and not there yet.

        Args:
            estimated: called once with the seconds that the rest will take, when the first part is done.
        """
        parts, num = self._parts("codes"), self.options.candidates

        def codes_of(items: range) -> np.ndarray:
            codes = self.pipeline.generate_codes(
                [self.asked[item].text for item in items],
                num,
                [self.options.seed + item * num for item in items],
                adapter=self.adapter,
                **self.sampling,
            )
            return codes.numpy().astype(np.int32)

        self._work_on(parts, "drawing", codes_of, estimated)

    def caption_losses(self, captioner: str) -> KeptParts:
        """Compute CapLoss of what this process has drawn; return where that of all candidates is kept."""
        chosen = self.pipeline.model.caption_model(captioner)
        tokenizer = self.pipeline.text_tokenizer
        codes = self._parts("codes")

        def losses_of(items: range) -> np.ndarray:
            drawn = codes.read(items.start // codes.items_per_part).astype(np.int64)
            pieces = [np.asarray(tokenizer.encode(self.asked[item].text), dtype=np.int64) for item in items]
            pairs = [(said, each) for said, row in zip(pieces, drawn, strict=True) for each in row]
            return chosen.losses(pairs).reshape(len(items), self.options.candidates)

        return self._scored(f"caption_loss-{self.fingerprint(captioner)}", "ranking", losses_of)

    def fits(self, scorer: FitScorer, fingerprint: str) -> KeptParts:
        """Score what this process has drawn by another judge; return where the scores of all candidates are kept.

        Args:
            scorer: the judge, which is asked with the captions that translations were made of.
            fingerprint: of its weights.
        """
        codes = self._parts("codes")

        def fits_of(items: range) -> np.ndarray:
            rows = codes.read(items.start // codes.items_per_part).astype(np.int64)
            return np.stack(
                [
                    scorer(self.asked[item].original, list(self._decoded(row)))
                    for item, row in zip(items, rows, strict=True)
                ]
            )

        return self._scored(f"{scorer.name}-{fingerprint}", f"asking {scorer.name}", fits_of)

    def await_all(self, parts: KeptParts | None = None) -> None:
        """Wait for what the other processes are at."""
        kept = parts or self._parts("codes")
        if self.ranks.num_ranks == 1:
            assert not kept.lacking(), "nobody else is at work"
            return
        with progress_bar("waiting for the other processes", "parts") as move:
            kept.await_all(lambda lacking: move(kept.num_parts - lacking, kept.num_parts))

    def pictures(
        self, captions: Int64[np.ndarray, "m"], candidates: Int64[np.ndarray, "m"]
    ) -> Iterator[Image.Image]:
        """Yield candidates of captions, which all are there, in this order."""
        kept = self._parts("codes")
        part, rows = -1, np.empty(0)
        waiting: list[np.ndarray] = []
        for caption, candidate in zip(captions.tolist(), candidates.tolist(), strict=True):
            if caption // kept.items_per_part != part:
                part = caption // kept.items_per_part
                rows = kept.read(part).astype(np.int64)
            waiting.append(rows[caption - kept.items(part).start, candidate])
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

    def _parts(self, name: str) -> KeptParts:
        return KeptParts(
            folder=self.options.out / name,
            num_items=len(self.asked),
            items_per_part=max(4, _PICTURES_PER_PART // self.options.candidates),
        )

    def _scored(self, name: str, what: str, scores_of: Callable[[range], np.ndarray]) -> KeptParts:
        parts = self._parts(f"scores/{name}")
        self._work_on(parts, what, scores_of)
        return parts

    def _work_on(
        self,
        parts: KeptParts,
        what: str,
        rows_of: Callable[[range], np.ndarray],
        estimated: Callable[[float], None] | None = None,
    ) -> None:
        """Make the parts that are this process's and not there yet."""
        lacking = parts.lacking(self.ranks)
        num_all = sum(len(parts.items(part)) for part in lacking) * self.options.candidates
        num_done = 0
        start = time.monotonic()
        with progress_bar(what, "pictures") as move:
            for part in lacking:
                items = parts.items(part)
                parts.write(part, rows_of(items))
                num_done += len(items) * self.options.candidates
                if part == lacking[0] and estimated is not None:
                    estimated((time.monotonic() - start) * (num_all - num_done) / num_done)
                move(num_done, num_all)


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
