"""CapLoss: how badly a text fits a picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from cogview.decoding.engine import Runner
from cogview.decoding.request import Context, Request, SequenceResult
from cogview.errors import UsageError
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, Pieces


def caption_losses(
    runner: Runner,
    template: CaptionTemplate,
    pairs: Sequence[tuple[Pieces, Codes]],
    *,
    counts_end: bool = False,
) -> Float64[np.ndarray, "n"]:
    """Compute CapLoss(x, t) = -(1/|t|) sum_i log p(t_i | x, t_<i) of each pair, in nats per piece.

    A picture precedes its texts, so pairs that share it share its prefill. Only the head's text rows are computed: p is
    over the pieces and the end token.

    Args:
        runner: of a captioning transformer.
        template: token order.
        pairs: (pieces, codes): texts of at least one piece, clipped if too long, and pictures.
        counts_end: whether the end token counts as one of the t_i; in the paper it does not.

    Raises:
        UsageError: a text has no pieces.
        CogViewError: codes or pieces outside the vocabulary, or logits that are not finite.

    Paper: section 3.2.
    """
    for number, (pieces, _) in enumerate(pairs, start=1):
        if not len(pieces):
            raise UsageError(
                f"text {number} of {len(pairs)} has no pieces, so no loss: say what the picture shows"
            )
    results = runner.engine.run(
        [loss_request(runner, template, pair, counts_end=counts_end) for pair in pairs]
    )
    nats = [
        result.nats for result in results if isinstance(result, SequenceResult) and result.nats is not None
    ]
    return np.array([each.mean() for each in nats], dtype=np.float64)


def loss_request(
    runner: Runner, template: CaptionTemplate, pair: tuple[Pieces, Codes], *, counts_end: bool = False
) -> Request:
    """Return the request that scores a text after a picture."""
    sequence = template.build(*pair)
    start = template.num_prefix_tokens
    targets, positions = sequence.tokens[start:], sequence.positions[start:]
    if counts_end:
        targets, positions = np.append(targets, template.end_token), np.append(positions, 0)
    return Request(
        context=Context(
            tokens=sequence.tokens[:start], positions=sequence.positions[:start], next_positions=positions
        ),
        legal=template.legal_tokens,
        given=targets - template.legal_tokens.start,
        variant=runner.variant,
        is_scored=True,
    )
