"""Codes to more codes: pictures at twice or four times their rows and columns, drawn anew in detail.

Letters of the shapes: b pictures, r s rows and columns of their codes, R S those of the magnified
ones; h w and H W the same of one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner, Session
from cogview.decoding.request import Context, Drawn, Finished, Progressed, Request
from cogview.errors import CogViewError, UsageError
from cogview.generation.text_to_image import Progress
from cogview.generation.windows import PlannedWindow, plan_windows
from cogview.sequence.super_resolution import FACTOR, SuperResolutionTemplate
from cogview.sequence.template import Pieces

RELEASED_TEMPERATURE = 1.02
FACTORS = (2, 4)


def window_seed(seed: int, stage: int, window: int) -> int:
    """Return the seed of a window: a function of the picture's and of where it is, so that no company changes it.

    Args:
        seed: of the picture, not negative.
        stage: 0 for the first doubling, 1 for the second.
        window: its number in the order of the windows.
    """
    return int(np.random.SeedSequence([seed, stage, window]).generate_state(1, np.uint64)[0])


class Magnifier:
    """Draws pictures of more codes that show what pictures of fewer codes show.

    A picture as large as the model reads is one sequence. A larger one is drawn window by window, each as soon as all
    that it reads is there. What a seed gives does not depend on the company of its picture, as far as `Engine` holds
    that.

    Args:
        runner: of the transformer that has learnt the template's sequences.
        template: the order of tokens.
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
                "all of the picture that is magnified."
            )
        self._runner = runner
        self.template = template

    @property
    def default_sampling(self) -> SamplingConfig:
        """How codes are drawn unless told otherwise: the most probable, or as the release does, with temperature 1.02.

        Whatever is drawn less probably than it could be shows as a broken edge in an otherwise given picture.
        """
        return SamplingConfig(temperature=RELEASED_TEMPERATURE if self.template.released else 0.0)

    def magnify(
        self,
        codes: Int64[Tensor, "b r s"],
        texts: Sequence[Pieces],
        seeds: Sequence[int],
        config: SamplingConfig | None = None,
        *,
        factor: int = 2,
        progress: Progress | None = None,
    ) -> Int64[Tensor, "b R S"]:
        """Return the codes of magnified pictures, on the CPU.

        Args:
            codes: the pictures, at least as large as the model reads.
            texts: the pieces of each, numbered as the text tokenizer does; clipped if too long.
            seeds: one for each picture, not negative.
            config: guidance, temperature, top-k and top-p; `default_sampling` if None.
            factor: 2, or 4 for a second doubling by windows.
            progress: called with the numbers of codes drawn or given so far and in all.

        Raises:
            UsageError: another factor, other numbers of texts or seeds than of pictures, a negative seed, or pictures
                smaller than the model reads.
            CogViewError: codes or pieces that the vocabulary does not have, or logits that are not finite.
        """
        if factor not in FACTORS:
            raise UsageError(f"pictures can be magnified by a factor of 2 or 4, got {factor}")
        if not len(codes):
            raise UsageError("there is no picture to magnify; give at least one")
        if not len(codes) == len(texts) == len(seeds):
            raise UsageError(
                f"each picture needs a text and a seed, got {len(codes)} pictures, {len(texts)} texts and "
                f"{len(seeds)} seeds"
            )
        if min(seeds) < 0:
            raise UsageError(f"seeds must not be negative, got {min(seeds)}")
        plan = self._plan((codes.shape[1], codes.shape[2]), factor)
        config = config or self.default_sampling
        pictures = [
            _Picture(codes=[low, *_unwritten(low, factor)], pieces=pieces, seed=seed)
            for low, pieces, seed in zip(codes.cpu().numpy(), texts, seeds, strict=True)
        ]
        num_done, num_all = 0, self.num_codes(len(pictures), (codes.shape[1], codes.shape[2]), factor)
        with self._runner.engine.session() as session:
            drawn_by: dict[int, tuple[_Picture, _Part]] = {}
            for picture in pictures:
                self._begin(session, picture, plan, config, drawn_by)
            for event in session.events():
                if isinstance(event, Progressed):
                    num_done += len(event.tokens)
                    if progress is not None:
                        progress(num_done, num_all)
                elif isinstance(event, Finished):
                    assert isinstance(event.result, Drawn), "windows are drawn"
                    picture, part = drawn_by[event.number]
                    picture.take(part, event.result.tokens)
                    self._begin(session, picture, plan, config, drawn_by)
        return torch.from_numpy(np.stack([picture.codes[-1] for picture in pictures]))

    def num_codes(self, num_pictures: int, grid: tuple[int, int], factor: int) -> int:
        """Return how many codes are read or drawn to magnify pictures: the number that `progress` ends with.

        Args:
            num_pictures: of one size.
            grid: rows and columns of their codes.
            factor: 2 or 4.
        """
        return num_pictures * sum(
            part.planned.stop - part.planned.first_drawn for part in self._plan(grid, factor)
        )

    def _plan(self, grid: tuple[int, int], factor: int) -> list["_Part"]:
        """Return the windows of all doublings, each with those that have to be drawn before it."""
        rows, columns = grid
        parts: list[_Part] = []
        for stage in range(FACTORS.index(factor) + 1):
            num_before = len(parts)
            stage_grid = (rows * FACTOR**stage, columns * FACTOR**stage)
            for planned in plan_windows(stage_grid, self.template.low_grid):
                # A stage reads what the one before has written, all of it at last.
                needs = {num_before + number for number in planned.reads}
                if stage:
                    needs |= {
                        number
                        for number, part in enumerate(parts[:num_before])
                        if part.stage == stage - 1 and part.planned.overlaps(planned.low_region)
                    }
                parts.append(_Part(stage=stage, planned=planned, needs=frozenset(needs), number=len(parts)))
        return parts

    def _begin(
        self,
        session: Session,
        picture: "_Picture",
        plan: Sequence["_Part"],
        config: SamplingConfig,
        drawn_by: dict[int, tuple["_Picture", "_Part"]],
    ) -> None:
        """Add a picture's windows that nothing keeps from being drawn any more."""
        for part in plan:
            if part.number not in picture.begun and part.needs <= picture.drawn:
                picture.begun.add(part.number)
                request = self._request(part, picture, config)
                drawn_by[session.add(request)] = (picture, part)

    def _request(self, part: "_Part", picture: "_Picture", config: SamplingConfig) -> Request:
        """Return what draws a window: text, low codes and the codes given before the first drawn are its context."""
        planned = part.planned
        low, high = (
            picture.codes[part.stage][planned.low_region],
            picture.codes[part.stage + 1][planned.high_region],
        )
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
            context=context(picture.pieces),
            unconditional=None if config.guidance == 1 else context(picture.pieces[:0]),
            legal=self.template.low.vocabulary.image_codes,
            seed=window_seed(picture.seed, part.stage, planned.number),
            sampling=config,
            given=given[first:stop],
            num_columns=planned.is_drawn.shape[1],
            variant=self._runner.variant,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A window of a doubling.

    Args:
        stage: 0 for the first doubling, 1 for the second.
        planned: the window.
        needs: the numbers, in the whole plan, of those that have to be drawn before it.
        number: its own.
    """

    stage: int
    planned: PlannedWindow
    needs: frozenset[int]
    number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    """A picture while it is magnified.

    Args:
        codes: of each stage, the given ones first; -1 where none is written yet.
        pieces: of its text.
        seed: of its windows' seeds.
        begun: the windows that are being drawn or are done.
        drawn: those that are done.
    """

    codes: list[Int64[np.ndarray, "_ _"]]
    pieces: Pieces
    seed: int
    begun: set[int] = field(default_factory=set)
    drawn: set[int] = field(default_factory=set)

    def take(self, part: _Part, drawn: Int64[np.ndarray, "n"]) -> None:
        """Write what a window drew where it belongs."""
        planned = part.planned
        whole = np.zeros(planned.is_drawn.size, dtype=np.int64)
        whole[planned.first_drawn : planned.stop] = drawn
        there = self.codes[part.stage + 1][planned.high_region]  # a view
        there[planned.is_drawn] = whole[planned.is_drawn.ravel()]
        self.drawn.add(part.number)


def _unwritten(low: Int64[np.ndarray, "h w"], factor: int) -> list[Int64[np.ndarray, "_ _"]]:
    """Return the places for a picture's high codes, of each doubling."""
    return [
        np.full((low.shape[0] * FACTOR**stage, low.shape[1] * FACTOR**stage), -1, dtype=np.int64)
        for stage in range(1, FACTORS.index(factor) + 2)
    ]
