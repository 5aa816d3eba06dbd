"""Texts to codes: shared prefill, batched decoding, one random generator for each candidate."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.cache import DecodingCache
from cogview.generation.config import LinearBackend, SamplingConfig
from cogview.generation.decoder import Decoder
from cogview.generation.sampling import sample, seeded_uniforms
from cogview.sequence.template import Pieces, TextToImageTemplate, TokenSequence
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
        textless: the same without a text, which guidance compares with; only needed for guidance.

    Raises:
        UsageError: there is no seed, or one is negative.
    """

    prefix: TokenSequence
    code_positions: Int64[np.ndarray, "n"]
    seeds: tuple[int, ...]
    textless: "Prompt | None" = None

    def __post_init__(self) -> None:
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
    """A prompt that was run: the normalised state of its last token, [d], and its keys and values."""

    state: Tensor
    cache: DecodingCache


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

    def generate(
        self, prompts: Sequence[Prompt], config: SamplingConfig, progress: Progress | None = None
    ) -> Int64[Tensor, "b n"]:
        """Return the codes of every candidate of every prompt, in this order, counted from 0, on the CPU.

        Texts whose prefixes are equally long are decoded together, so that all sequences of a batch have one
        length and nothing has to be masked.

        Args:
            prompts: at least one, all for the same number of codes.
            config: guidance, temperature, top-k and top-p.
            progress: called after each step.
        """
        by_length: dict[tuple[int, ...], list[_Candidate]] = defaultdict(list)
        num_rows = 0
        for prompt in prompts:
            for seed in prompt.seeds:
                candidate = _Candidate(row=num_rows, prompt=prompt, seed=seed)
                together = (prompt, _textless(prompt)) if config.guidance != 1 else (prompt,)
                by_length[tuple(len(each.prefix.tokens) for each in together)].append(candidate)
                num_rows += 1
        num_codes = len(prompts[0].code_positions)
        codes = torch.empty(num_rows, num_codes, dtype=torch.int64)
        num_done = 0
        for group in by_length.values():
            read: dict[Prompt, _Read] = {}
            for start in range(0, len(group), self._max_batch):
                batch = group[start : start + self._max_batch]

                def step(num_steps: int, done: int = num_done, width: int = len(batch)) -> None:
                    if progress is not None:
                        progress(done + width * num_steps, codes.numel())

                with torch.inference_mode():
                    prompts_here = dict.fromkeys(candidate.prompt for candidate in batch)
                    if config.guidance != 1:
                        prompts_here |= dict.fromkeys(_textless(candidate.prompt) for candidate in batch)
                    read = {prompt: read.get(prompt) or self._read(prompt) for prompt in prompts_here}
                    drawn = self._draw(batch, read, config, step)
                codes[[candidate.row for candidate in batch]] = drawn.cpu()
                num_done += drawn.numel()
        return codes

    def _draw(
        self,
        batch: Sequence[_Candidate],
        read: Mapping[Prompt, _Read],
        config: SamplingConfig,
        step: Callable[[int], None],
    ) -> Int64[Tensor, "b n"]:
        """Draw the pictures of one batch, whose prefixes are equally long."""
        prompts = [candidate.prompt for candidate in batch]
        rows = [self._rows(prompts, read)]
        if config.guidance != 1:
            rows.append(self._rows([_textless(prompt) for prompt in prompts], read))
        num_codes = rows[0].positions.shape[1]
        uniforms = seeded_uniforms([candidate.seed for candidate in batch], num_codes)
        uniforms = uniforms.to(self.decoder.device)
        codes = torch.empty_like(rows[0].positions)
        for index in range(num_codes):
            logits = self.decoder.logits(rows[0].hidden)
            if config.guidance != 1:
                textless = self.decoder.logits(
                    rows[1].hidden
                ).float()  # what is far apart must not be rounded
                logits = textless + config.guidance * (logits.float() - textless)
            codes[:, index] = sample(logits, config, uniforms[:, index])
            step(index + 1)
            if index + 1 < num_codes:
                tokens = codes[:, index] + self._first_code
                for each in rows:
                    each.hidden = self.decoder.decode(tokens, each.positions[:, index], each.cache)
        return codes

    def _read(self, prompt: Prompt) -> _Read:
        """Run a prompt by itself, so that the bits of its keys do not depend on its company."""
        cache = self.decoder.new_cache(1, len(prompt.prefix.tokens))
        tokens, positions = (
            torch.from_numpy(array)[None].to(self.decoder.device)
            for array in (prompt.prefix.tokens, prompt.prefix.positions)
        )
        return _Read(state=self.decoder.prefill(tokens, positions, cache)[0], cache=cache)

    def _rows(self, prompts: Sequence[Prompt], read: Mapping[Prompt, _Read]) -> "_Rows":
        """Return the sequences of prompts that were run, each with a copy of its prompt and room for its codes."""
        positions = torch.from_numpy(np.stack([prompt.code_positions for prompt in prompts]))
        first = read[prompts[0]].cache
        cache = self.decoder.new_cache(len(prompts), first.length + positions.shape[1] - 1)
        cache.copy_prompts([read[prompt].cache for prompt in prompts])
        return _Rows(
            positions=positions.to(self.decoder.device),
            hidden=torch.stack([read[prompt].state for prompt in prompts]),
            cache=cache,
        )


@dataclass(kw_only=True)
class _Rows:
    """Sequences that are drawn together: positions of their codes [b n], state of their last token [b d], cache."""

    positions: Int64[Tensor, "b n"]
    hidden: Float[Tensor, "b d"]
    cache: DecodingCache


def _textless(prompt: Prompt) -> Prompt:
    """Return the prompt without the text.

    Raises:
        UsageError: there is none.
    """
    if prompt.textless is None:
        raise UsageError("guidance compares with a prompt without a text; give each prompt its textless one")
    return prompt.textless
