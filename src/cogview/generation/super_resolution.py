"""Super-resolution: pictures of two or four times the rows and columns of codes.

Letters of the shapes: b pictures, r s rows and columns of their codes, R S those of the upscaled ones; h w and H W the
same of one picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.request import Context, Finished, Progressed, Request, SequenceResult
from cogview.errors import CogViewError, UsageError
from cogview.generation.text_to_image import Progress
from cogview.generation.windows import PlannedWindow, plan_windows
from cogview.numbers import whole_number
from cogview.sequence.super_resolution import FACTOR, SuperResolutionTemplate
from cogview.sequence.template import Pieces

RELEASED_TEMPERATURE = 1.02
FACTORS = (2, 4)


def window_seed(seed: int, stage: int, window: int) -> int:
    """Return the seed of a window, from the picture's seed and the window's position alone.

    Args:
        seed: of the picture, not negative.
        stage: 0 for the first doubling, 1 for the second.
        window: its index in the order of the windows.
    """
    return int(np.random.SeedSequence([seed, stage, window]).generate_state(1, np.uint64)[0])


class SuperResolution:
    """Upscales codes with a super-resolution transformer.

    A picture of the size that the model reads is one sequence. A larger one is drawn window by window, each as soon as
    the windows that it reads are done. Results do not depend on the batch, as far as `Engine` ensures that.

    Args:
        runner: of a super-resolution transformer.
        template: token order.
    """

    def __init__(self, runner: Runner, template: SuperResolutionTemplate) -> None:
        config = runner.variant.config
        if config.num_positions < template.num_positions:
            raise CogViewError(
                f"Super-resolution of {template.low_grid[0]}x{template.low_grid[1]} codes needs "
                f"{template.num_positions:,} positions, and this transformer has {config.num_positions:,}: it was not "
                "trained for it."
            )
        if config.attention_pattern != "dense":
            raise CogViewError(
                "Super-resolution needs a transformer with dense attention: in three regions, a code would not see "
                "all of the picture that is upscaled."
            )
        self.runner = runner
        self.template = template

    @property
    def default_sampling(self) -> SamplingConfig:
        """Default settings: the most probable codes, or temperature 1.02 for released weights.

        A less probable code shows as a broken edge, since the rest of the picture is given.
        """
        return SamplingConfig(temperature=RELEASED_TEMPERATURE if self.template.released else 0.0)

    def upscale(
        self,
        codes: Int64[Tensor, "b r s"],
        texts: Sequence[Pieces],
        seeds: Sequence[int],
        config: SamplingConfig | None = None,
        *,
        factor: int = 2,
        progress: Progress | None = None,
    ) -> Int64[Tensor, "b R S"]:
        """Return the codes of upscaled pictures, on the CPU.

        Args:
            codes: of pictures at least as large as the model reads.
            texts: pieces of each picture's text; clipped if too long.
            seeds: of each picture, not negative.
            config: guidance, temperature, top-k and top-p; `default_sampling` if None.
            factor: 2, or 4 for a second doubling by windows.
            progress: called with the number of codes drawn or given so far, and of all.

        Raises:
            UsageError: another factor, unequal numbers of pictures, texts and seeds, a negative seed, or pictures
                smaller than the model reads.
            CogViewError: codes or pieces outside the vocabulary, or logits that are not finite.
        """
        if factor not in FACTORS:
            raise UsageError(f"pictures can be upscaled by a factor of 2 or 4, got {factor}")
        if not len(codes):
            raise UsageError("no picture given; give at least one")
        if not len(codes) == len(texts) == len(seeds):
            raise UsageError(
                f"each picture needs a text and a seed, got {len(codes)} pictures, {len(texts)} texts and "
                f"{len(seeds)} seeds"
            )
        if min(whole_number("a seed", seed) for seed in seeds) < 0:
            raise UsageError(f"seeds must not be negative, got {min(seeds)}")
        config = config or self.default_sampling
        pictures = [
            self.begin(low, pieces, seed, config, factor)
            for low, pieces, seed in zip(codes.cpu().numpy(), texts, seeds, strict=True)
        ]
        num_done, num_all = 0, self.num_codes(len(pictures), (codes.shape[1], codes.shape[2]), factor)
        with self.runner.engine.session() as session:
            window_of: dict[int, tuple[PictureInWindows, StageWindow]] = {}

            def add(picture: PictureInWindows) -> None:
                for part, request in picture.new_requests():
                    window_of[session.add(request)] = picture, part

            for picture in pictures:
                add(picture)
            for event in session.events():
                if isinstance(event, Progressed):
                    num_done += len(event.tokens)
                    if progress is not None:
                        progress(num_done, num_all)
                elif isinstance(event, Finished):
                    assert isinstance(event.result, SequenceResult), "windows are drawn"
                    picture, part = window_of.pop(event.number)
                    picture.take(part, event.result.tokens)
                    add(picture)
        return torch.from_numpy(np.stack([picture.codes for picture in pictures]))

    def begin(
        self, low: Int64[np.ndarray, "h w"], pieces: Pieces, seed: int, config: SamplingConfig, factor: int
    ) -> "PictureInWindows":
        """Return the state of a picture to upscale.

        Raises:
            UsageError: the picture is smaller than the model reads.
        """
        rows, columns = low.shape
        return PictureInWindows(
            stages=[
                low,
                *(
                    np.full((rows * FACTOR**stage, columns * FACTOR**stage), -1, dtype=np.int64)
                    for stage in range(1, FACTORS.index(factor) + 2)
                ),
            ],
            plan=_plan((rows, columns), factor, self.template.low_grid),
            new_request=lambda part, picture: self._request(part, picture, pieces, seed, config),
        )

    def num_codes(self, num_pictures: int, grid: tuple[int, int], factor: int) -> int:
        """Return the number of codes to read or draw: the total that `progress` reports.

        Args:
            num_pictures: of equal size.
            grid: rows and columns of their codes.
            factor: 2 or 4.
        """
        return num_pictures * sum(
            part.planned.stop - part.planned.first_drawn
            for part in _plan(grid, factor, self.template.low_grid)
        )

    def _request(
        self,
        part: "StageWindow",
        picture: "PictureInWindows",
        text: Pieces,
        seed: int,
        config: SamplingConfig,
    ) -> Request:
        """Return the request for a window: its context is the text, the low codes and the given first codes."""
        planned = part.planned
        low = picture.stages[part.stage][planned.low_region]
        high = picture.stages[part.stage + 1][planned.high_region]
        first, stop = planned.first_drawn, planned.stop
        given = np.where(planned.is_drawn, -1, high).ravel()
        positions = self.template.high_code_positions()

        def context(pieces: Pieces) -> Context:
            prefix = self.template.prefix(pieces, low)
            return Context(
                tokens=np.concatenate([prefix.tokens, given[:first]]),
                positions=np.concatenate([prefix.positions, positions[:first]]),
                next_positions=positions[first:stop],
            )

        return Request(
            context=context(text),
            unconditional=None if config.guidance == 1 else context(text[:0]),
            legal=self.template.low.vocabulary.image_codes,
            seed=window_seed(seed, part.stage, planned.number),
            sampling=config,
            given=given[first:stop],
            num_columns=planned.is_drawn.shape[1],
            variant=self.runner.variant,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StageWindow:
    """Window of one doubling.

    Args:
        stage: 0 for the first doubling, 1 for the second.
        planned: where it lies and what it draws.
        needs: numbers, in the whole plan, of the windows to draw before it.
        number: its number in the whole plan.
    """

    stage: int
    planned: PlannedWindow
    needs: frozenset[int]
    number: int


class PictureInWindows:
    """Picture that is being upscaled window by window.

    Args:
        stages: codes before and after each doubling; -1 where none is drawn yet.
        plan: windows of all doublings.
        new_request: returns the request for a window.
    """

    def __init__(
        self,
        stages: Sequence[Int64[np.ndarray, "_ _"]],
        plan: Sequence[StageWindow],
        new_request: Callable[[StageWindow, "PictureInWindows"], Request],
    ) -> None:
        self.stages = stages
        self._new_request = new_request
        self._waiting = list(plan)
        self._num_left = len(plan)
        self._drawn: set[int] = set()

    @property
    def codes(self) -> Int64[np.ndarray, "H W"]:
        """Codes of the upscaled picture."""
        return self.stages[-1]

    @property
    def is_done(self) -> bool:
        """Whether all windows are drawn."""
        return not self._num_left

    def new_requests(self) -> list[tuple[StageWindow, Request]]:
        """Return the windows that can be drawn now, each once, with their requests."""
        possible = [part for part in self._waiting if part.needs <= self._drawn]
        self._waiting = [part for part in self._waiting if not part.needs <= self._drawn]
        return [(part, self._new_request(part, self)) for part in possible]

    def take(self, part: StageWindow, codes: Int64[np.ndarray, "n"]) -> None:
        """Store the codes that a window drew."""
        planned = part.planned
        whole = np.zeros(planned.is_drawn.size, dtype=np.int64)
        whole[planned.first_drawn : planned.stop] = codes
        region = self.stages[part.stage + 1][planned.high_region]  # a view
        region[planned.is_drawn] = whole[planned.is_drawn.ravel()]
        self._drawn.add(part.number)
        self._num_left -= 1


@lru_cache(maxsize=16)
def _plan(grid: tuple[int, int], factor: int, low_grid: tuple[int, int]) -> tuple[StageWindow, ...]:
    """Return the windows of all doublings, each with the windows to draw before it."""
    rows, columns = grid
    parts: list[StageWindow] = []
    for stage in range(FACTORS.index(factor) + 1):
        num_before = len(parts)
        stage_grid = (rows * FACTOR**stage, columns * FACTOR**stage)
        for planned in plan_windows(stage_grid, low_grid):
            # A stage reads what the one before has written, all of it at last.
            needs = {num_before + number for number in planned.reads}
            if stage:
                needs |= {
                    number
                    for number, part in enumerate(parts[:num_before])
                    if part.stage == stage - 1 and part.planned.overlaps(planned.low_region)
                }
            parts.append(StageWindow(stage=stage, planned=planned, needs=frozenset(needs), number=len(parts)))
    return tuple(parts)
