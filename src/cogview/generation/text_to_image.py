"""Text-to-image sequences as engine requests."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.request import Context, Finished, Progressed, Request, SequenceResult
from cogview.errors import UsageError
from cogview.sequence.template import Pieces, TextToImageTemplate

Progress = Callable[[int, int], None]
"""Called with the number of codes so far, and of all pictures."""


def text_context(template: TextToImageTemplate, pieces: Pieces) -> Context:
    """Return the context of a picture: its text, or with no pieces the unconditional context."""
    prefix = template.prefix(pieces)
    return Context(
        tokens=prefix.tokens, positions=prefix.positions, next_positions=template.code_positions(len(pieces))
    )


def picture_request(
    runner: Runner,
    template: TextToImageTemplate,
    pieces: Pieces,
    seed: int,
    config: SamplingConfig,
    given: Int64[np.ndarray, "n"] | None = None,
) -> Request:
    """Return the request that draws a picture.

    Args:
        runner: of a text-to-image transformer.
        template: token order.
        pieces: of the text.
        seed: draws the same picture in any batch.
        config: guidance, temperature, top-k, top-p and sampler.
        given: codes row by row, with -1 where one is to be drawn; all are drawn if None.
    """
    unconditional = None if config.guidance == 1 else text_context(template, np.empty(0, dtype=np.int64))
    return Request(
        context=text_context(template, pieces),
        unconditional=unconditional,
        legal=template.vocabulary.image_codes,
        seed=seed,
        sampling=config,
        given=given,
        num_columns=template.grid_columns,
        variant=runner.variant,
        guess_table=runner.guess_table,
    )


def draw(
    runner: Runner, requests: Sequence[Request], progress: Progress | None = None
) -> Int64[Tensor, "b n"]:
    """Run requests of equally many codes, and return their codes, on the CPU.

    Raises:
        UsageError: the numbers of codes differ.
        CogViewError: the transformer's logits are not finite.
    """
    nums = sorted({request.num_tokens for request in requests})
    if len(nums) > 1:
        raise UsageError(
            f"pictures of {nums[0]} and of {nums[1]} codes cannot be one tensor: draw them separately"
        )
    codes = torch.empty(len(requests), *nums or [0], dtype=torch.int64)
    num_done = 0
    with runner.engine.session() as session:
        row_of = {session.add(request): row for row, request in enumerate(requests)}
        for event in session.events():
            if isinstance(event, Progressed):
                num_done += len(event.tokens)
            elif isinstance(event, Finished):
                assert isinstance(event.result, SequenceResult), "pictures are drawn"
                codes[row_of[event.number]] = torch.from_numpy(event.result.tokens)
            if progress is not None:
                progress(num_done, codes.numel())
    return codes
