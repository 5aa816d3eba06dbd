"""Codes to more codes: pictures at twice or four times their rows and columns, drawn anew in detail.

Letters of the shapes: b pictures, r s rows and columns of their codes, R S those of the magnified
ones; h w and H W the same of one picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.generation.config import SamplingConfig
from cogview.generation.engine import Engine, Progress, Prompt
from cogview.generation.windows import PlannedWindow, plan_windows
from cogview.sequence.super_resolution import FACTOR, SuperResolutionTemplate
from cogview.sequence.template import Pieces, TokenKind, TokenSequence

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

    A picture as large as the model reads is one sequence. A larger one is drawn window by window; those that read
    nothing of each other, of all pictures, are one batch. What a seed gives does not depend on the company of its
    picture, as far as `Engine` holds that.

    Args:
        engine: holds the transformer that has learnt the template's sequences.
        template: the order of tokens.
    """

    def __init__(self, engine: Engine, template: SuperResolutionTemplate) -> None:
        config = engine.decoder.config
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
        self._engine = engine
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
            progress: called with the numbers of codes read or drawn so far and in all.

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
        waves = self._waves((codes.shape[1], codes.shape[2]), factor)
        report = _report(progress, [len(codes) * wave.num_codes for wave in waves])
        pictures = [
            _Picture(low=low, high=_unwritten(low), pieces=pieces, seed=seed)
            for low, pieces, seed in zip(codes.cpu().numpy(), texts, seeds, strict=True)
        ]
        stage = 0
        for number, wave in enumerate(waves):
            if wave.stage != stage:
                pictures = [replace(each, low=each.high, high=_unwritten(each.high)) for each in pictures]
                stage = wave.stage
            self._draw(wave, pictures, config or self.default_sampling, report and report(number))
        return torch.from_numpy(np.stack([picture.high for picture in pictures]))

    def num_codes(self, num_pictures: int, grid: tuple[int, int], factor: int) -> int:
        """Return how many codes are read or drawn to magnify pictures: the number that `progress` ends with.

        Args:
            num_pictures: of one size.
            grid: rows and columns of their codes.
            factor: 2 or 4.
        """
        return num_pictures * sum(wave.num_codes for wave in self._waves(grid, factor))

    def _waves(self, grid: tuple[int, int], factor: int) -> list["_Wave"]:
        """Return the windows of all doublings, those that are drawn together as one wave."""
        rows, columns = grid
        return [
            _Wave(stage=stage, windows=tuple(windows))
            for stage in range(FACTORS.index(factor) + 1)
            for windows in plan_windows(
                (rows * FACTOR**stage, columns * FACTOR**stage), self.template.low_grid
            )
        ]

    def _draw(
        self, wave: "_Wave", pictures: Sequence["_Picture"], config: SamplingConfig, progress: Progress | None
    ) -> None:
        """Draw the windows of a wave, of all pictures, where they belong."""
        prompts = [
            self._prompt(wave, planned, picture, with_textless=config.guidance != 1)
            for planned in wave.windows
            for picture in pictures
        ]
        drawn = iter(self._engine.generate(prompts, config, progress).numpy())
        for planned in wave.windows:
            first, num_own = planned.first_drawn, planned.stop - planned.first_drawn
            for picture in pictures:
                whole = np.zeros(planned.is_drawn.size, dtype=np.int64)
                whole[first : planned.stop] = next(drawn)[:num_own]
                there = picture.high[planned.high_region]  # a view
                there[planned.is_drawn] = whole[planned.is_drawn.ravel()]

    def _prompt(
        self, wave: "_Wave", planned: PlannedWindow, picture: "_Picture", *, with_textless: bool
    ) -> Prompt:
        """Return what draws a window: text, low codes and the codes given before the first drawn are its prefix."""
        first, num_own = planned.first_drawn, planned.stop - planned.first_drawn
        given = np.where(planned.is_drawn, -1, picture.high[planned.high_region]).ravel()
        positions = self.template.high_code_positions()
        # Windows of a wave that end earlier go on over codes that nobody asks for, so that they stay in the batch.
        forced = np.zeros(wave.num_codes_each, dtype=np.int64)
        forced[:num_own] = given[first : planned.stop]
        code_positions = np.full(wave.num_codes_each, positions[-1])
        code_positions[:num_own] = positions[first : planned.stop]

        def prompt(pieces: Pieces, textless: Prompt | None) -> Prompt:
            prefix = self.template.prefix(pieces, picture.low[planned.low_region])
            return Prompt(
                prefix=TokenSequence(
                    tokens=np.concatenate([prefix.tokens, given[:first]]),
                    positions=np.concatenate([prefix.positions, positions[:first]]),
                    kind=np.concatenate([prefix.kind, np.full(first, TokenKind.IMAGE, dtype=np.int8)]),
                ),
                code_positions=code_positions,
                seeds=(window_seed(picture.seed, wave.stage, planned.number),),
                max_prefix_tokens=self.template.max_prefix_tokens + wave.max_first_drawn,
                textless=textless,
                forced=forced,
            )

        return prompt(picture.pieces, prompt(picture.pieces[:0], None) if with_textless else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    """A picture at one stage; its high codes are -1 where none is written yet."""

    low: Int64[np.ndarray, "h w"]
    high: Int64[np.ndarray, "H W"]
    pieces: Pieces
    seed: int


def _unwritten(low: Int64[np.ndarray, "h w"]) -> Int64[np.ndarray, "H W"]:
    """Return the place for a picture's high codes."""
    return np.full((FACTOR * low.shape[0], FACTOR * low.shape[1]), -1, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Wave:
    """Windows that are drawn together."""

    stage: int
    windows: tuple[PlannedWindow, ...]

    @property
    def max_first_drawn(self) -> int:
        """The most given codes that a window begins with."""
        return max(planned.first_drawn for planned in self.windows)

    @property
    def num_codes_each(self) -> int:
        """Codes that the longest window reads or draws after those that it begins with."""
        return max(planned.stop - planned.first_drawn for planned in self.windows)

    @property
    def num_codes(self) -> int:
        """Codes that are read or drawn for one picture."""
        return len(self.windows) * self.num_codes_each


def _report(progress: Progress | None, nums_codes: Sequence[int]) -> Callable[[int], Progress] | None:
    """Return what gives each wave, by its number, a progress of its own that counts on from the waves before."""
    if progress is None:
        return None

    def of_wave(number: int) -> Progress:
        return lambda done, _: progress(sum(nums_codes[:number]) + done, sum(nums_codes))

    return of_wave
