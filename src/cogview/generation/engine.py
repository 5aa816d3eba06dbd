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

    Raises:
        UsageError: there is no seed, or one is negative.
    """

    prefix: TokenSequence
    code_positions: Int64[np.ndarray, "n"]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0:
            raise UsageError(f"seeds must be at least one and none negative, got {list(self.seeds)}")

    @classmethod
    def of(cls, template: TextToImageTemplate, pieces: Pieces, seeds: Sequence[int]) -> "Prompt":
        """Return the prompt of a text's pieces."""
        return cls(
            prefix=template.prefix(pieces),
            code_positions=template.code_positions(len(pieces)),
            seeds=tuple(seeds),
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
    sums the same in any company (one to two with packed fp32 weights, none with packed half-precision ones; on a
    processor where no padding does, `row_multiple` finds none, and this does not hold). On CUDA, products of another
    batch size round differently, so there a draw that is all but a tie may turn out otherwise.

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
            config: temperature, top-k and top-p.
            progress: called after each step.
        """
        by_length: dict[int, list[_Candidate]] = defaultdict(list)
        num_rows = 0
        for prompt in prompts:
            for seed in prompt.seeds:
                candidate = _Candidate(row=num_rows, prompt=prompt, seed=seed)
                by_length[len(prompt.prefix.tokens)].append(candidate)
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
        decoder, device = self.decoder, self.decoder.device
        positions = torch.from_numpy(np.stack([candidate.prompt.code_positions for candidate in batch]))
        positions = positions.to(device)
        num_codes = positions.shape[1]
        uniforms = seeded_uniforms([candidate.seed for candidate in batch], num_codes).to(device)
        hidden, cache = self._shared([read[candidate.prompt] for candidate in batch], num_codes)
        codes = torch.empty_like(positions)
        for index in range(num_codes):
            codes[:, index] = sample(decoder.logits(hidden), config, uniforms[:, index])
            step(index + 1)
            if index + 1 < num_codes:
                tokens = codes[:, index] + self._first_code
                hidden = decoder.decode(tokens, positions[:, index], cache)
        return codes

    def _read(self, prompt: Prompt) -> _Read:
        """Run a prompt by itself, so that the bits of its keys do not depend on its company."""
        cache = self.decoder.new_cache(1, len(prompt.prefix.tokens))
        tokens, positions = (
            torch.from_numpy(array)[None].to(self.decoder.device)
            for array in (prompt.prefix.tokens, prompt.prefix.positions)
        )
        return _Read(state=self.decoder.prefill(tokens, positions, cache)[0], cache=cache)

    def _shared(self, read: Sequence[_Read], num_codes: int) -> tuple[Float[Tensor, "b d"], DecodingCache]:
        """Return the state of each candidate's last token, and a cache with a copy of its prompt and room for codes."""
        num_tokens = read[0].cache.length
        shared = self.decoder.new_cache(len(read), num_tokens + num_codes - 1)
        shared.copy_prompts([each.cache for each in read])
        return torch.stack([each.state for each in read]), shared
