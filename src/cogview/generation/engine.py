"""Texts to codes: shared prefill, batched decoding, one random generator for each candidate."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.generation.cache import DecodingCache
from cogview.generation.config import LinearBackend, SamplingConfig
from cogview.generation.decoder import Decoder
from cogview.generation.sampling import sample, seeded_uniforms
from cogview.sequence.template import Pieces, TextToImageTemplate, TokenSequence
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.model import Transformer

Progress = Callable[[int, int], None]
"""Called with the numbers of codes drawn so far and to be drawn, over all pictures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A text to draw pictures for.

    Args:
        prefix: the tokens before the codes.
        code_positions: position index of each code.
        seeds: one for each candidate; a seed draws the same picture alone or in any batch.
        max_prefix_tokens: places that are kept for the prefix, as many as it has by default. Prompts are drawn side by
            side where theirs are equal.
        textless: the same without a text, which guidance compares with; only needed for guidance.
        forced: codes that stand already, and -1 where one is to be drawn, for each of `code_positions`; all are drawn
            if None. Whatever is forced, a code is drawn with the random number of its place.

    Raises:
        UsageError: there is no seed, or one is negative.
    """

    prefix: TokenSequence
    code_positions: Int64[np.ndarray, "n"]
    seeds: tuple[int, ...]
    max_prefix_tokens: int = 0
    textless: "Prompt | None" = None
    forced: Int64[np.ndarray, "n"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_prefix_tokens", max(self.max_prefix_tokens, len(self.prefix.tokens)))
        if not self.seeds or min(self.seeds) < 0:
            raise UsageError(f"seeds must be at least one and none negative, got {list(self.seeds)}")

    @classmethod
    def of(
        cls,
        template: TextToImageTemplate,
        pieces: Pieces,
        seeds: Sequence[int],
        textless: "Prompt | None" = None,
    ) -> "Prompt":
        """Return the prompt of a text's pieces; of none, it is the one to pass as `textless`."""
        return cls(
            prefix=template.prefix(pieces),
            code_positions=template.code_positions(len(pieces)),
            seeds=tuple(seeds),
            max_prefix_tokens=template.max_prefix_tokens,
            textless=textless,
        )


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One picture to draw: the row of the result, its prompt and its seed."""

    row: int
    prompt: Prompt
    seed: int


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A prompt that was run: the normalised state of its last token, its keys and values, its codes' positions."""

    state: Float[Tensor, "d"]
    cache: DecodingCache
    code_positions: Int64[np.ndarray, "n"]


class Engine:
    """Draws codes for texts.

    On CPU the codes of a seed are the same, to the bit, whatever else is drawn at the same time and in whichever
    dtype: attention treats every sequence by itself, and rows of the linear maps are padded where that keeps a row's
    sums the same in any company (one to two with packed fp32 weights, mostly none with packed half-precision ones;
    on a processor where no padding does, `row_multiple` finds none, and this does not hold). On CUDA, products of
    another batch size round differently, so there a draw that is all but a tie may turn out otherwise.

    Args:
        transformer: its weights are taken as they are now.
        legal_codes: the tokens of the vocabulary that are image codes.
        dtype: of the linear maps; the transformer's by default. x86 CPUs are faster with fp16 weights, and those
            with bf16 instructions also with bf16 weights.
        backend: kernels of the linear maps.
        batch_invariant: whether that has to hold on CPU; it costs next to nothing with packed weights.
        max_batch: pictures drawn at once; more are drawn in turn.
    """

    def __init__(
        self,
        transformer: Transformer,
        legal_codes: range,
        *,
        dtype: torch.dtype | None = None,
        backend: LinearBackend = "auto",
        batch_invariant: bool = True,
        max_batch: int = 16,
    ) -> None:
        if max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, got {max_batch}")
        self.decoder = Decoder(
            transformer, legal_codes, dtype=dtype, backend=backend, batch_invariant=batch_invariant
        )
        self._first_code = legal_codes.start
        self._max_batch = max_batch

    def adapted(self, transformer: AdaptedTransformer) -> "Engine":
        """Return the engine of this one's transformer with an adapter; they share the prepared weights."""
        engine = copy(self)
        engine.decoder = self.decoder.adapted(transformer)
        return engine

    def generate(
        self, prompts: Sequence[Prompt], config: SamplingConfig, progress: Progress | None = None
    ) -> Int64[Tensor, "b n"]:
        """Return the codes of every candidate of every prompt, in this order, counted from 0, on the CPU.

        Guided candidates take two rows of a batch, with the text and without.

        Args:
            prompts: at least one, all for the same number of codes.
            config: guidance, temperature, top-k and top-p.
            progress: called after each step.

        Raises:
            CogViewError: the transformer's logits are not finite.
        """
        groups: dict[int, list[_Candidate]] = defaultdict(list)
        num_rows = 0
        for prompt in prompts:
            together = prompt if config.guidance == 1 else _textless(prompt)
            room = max(prompt.max_prefix_tokens, together.max_prefix_tokens)
            for seed in prompt.seeds:
                groups[room].append(_Candidate(row=num_rows, prompt=prompt, seed=seed))
                num_rows += 1
        num_codes = len(prompts[0].code_positions)
        codes = torch.empty(num_rows, num_codes, dtype=torch.int64)
        num_done = 0
        for room, group in groups.items():
            read: dict[Prompt, _Read] = {}
            for start in range(0, len(group), self._max_batch):
                batch = group[start : start + self._max_batch]

                def step(num_steps: int, done: int = num_done, width: int = len(batch)) -> None:
                    if progress is not None:
                        progress(done + width * num_steps, codes.numel())

                with torch.inference_mode():
                    rows = [candidate.prompt for candidate in batch]
                    if config.guidance != 1:
                        rows += [_textless(prompt) for prompt in rows]
                    read = {
                        prompt: read.get(prompt) or self._read(prompt, room) for prompt in dict.fromkeys(rows)
                    }
                    drawn = self._draw(batch, [read[prompt] for prompt in rows], config, step)
                codes[[candidate.row for candidate in batch]] = drawn.cpu()
                num_done += drawn.numel()
        return codes

    def _draw(
        self,
        batch: Sequence[_Candidate],
        rows: Sequence[_Read],
        config: SamplingConfig,
        step: Callable[[int], None],
    ) -> Int64[Tensor, "b n"]:
        """Draw a picture for each candidate; with guidance, rows without a text follow those with one."""
        num_codes = len(rows[0].code_positions)
        positions = torch.from_numpy(np.stack([row.code_positions for row in rows])).to(self.decoder.device)
        uniforms = seeded_uniforms([each.seed for each in batch], num_codes).to(self.decoder.device)
        # Asked of NumPy, so that no step waits for a GPU to say whether anything is drawn.
        given = np.stack([_forced(candidate.prompt) for candidate in batch])
        is_given, is_drawn = np.any(given >= 0, axis=0), np.any(given < 0, axis=0)
        last_drawn = int(np.flatnonzero(is_drawn)[-1])
        forced = torch.from_numpy(given).to(self.decoder.device)
        cache = self.decoder.new_cache(len(rows), rows[0].cache.length + num_codes - 1)
        cache.copy_prompts([row.cache for row in rows])
        hidden = torch.stack([row.state for row in rows])
        codes = forced.clone()
        for index in range(num_codes):
            if is_drawn[index]:
                logits = self.decoder.logits(hidden)
                if config.guidance != 1:
                    # What is far apart must not be rounded.
                    with_text, without = logits.float().chunk(2)
                    logits = without + config.guidance * (with_text - without)
                # What is not finite stays so to the end, so it is looked for once.
                if index == last_drawn and not bool(torch.isfinite(logits).all()):
                    raise CogViewError(
                        "the transformer's logits are infinite or NaN: its weights are damaged, or too large for this "
                        "dtype; load it as float32, or copy or export the model again"
                    )
                drawn = sample(logits, config, uniforms[:, index])
                if is_given[index]:
                    drawn = torch.where(forced[:, index] < 0, drawn, forced[:, index])
                codes[:, index] = drawn
            step(index + 1)
            if index + 1 < num_codes:
                tokens = codes[:, index] + self._first_code
                if config.guidance != 1:
                    tokens = tokens.repeat(2)
                hidden = self.decoder.decode(tokens, positions[:, index], cache)
        return codes

    def _read(self, prompt: Prompt, room: int) -> _Read:
        """Run a prompt by itself, so that the bits of its keys do not depend on its company."""
        cache = self.decoder.new_cache(1, room, start=room - len(prompt.prefix.tokens))
        tokens, positions = (
            torch.from_numpy(array)[None].to(self.decoder.device)
            for array in (prompt.prefix.tokens, prompt.prefix.positions)
        )
        state = self.decoder.prefill(tokens, positions, cache)[0]
        return _Read(state=state, cache=cache, code_positions=prompt.code_positions)


def _forced(prompt: Prompt) -> Int64[np.ndarray, "n"]:
    """Return the codes of a prompt that stand already, and -1 for all others."""
    return np.full(len(prompt.code_positions), -1) if prompt.forced is None else prompt.forced


def _textless(prompt: Prompt) -> Prompt:
    """Return the prompt without the text.

    Raises:
        UsageError: there is none.
    """
    if prompt.textless is None:
        raise UsageError("guidance compares with a prompt without a text; give each prompt its textless one")
    return prompt.textless
