"""CapLoss: how badly a text fits a picture, by a transformer that writes texts after pictures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from cogview.decoding.engine import Runner
from cogview.decoding.request import Context, Drawn, Request
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
    """Return CapLoss(x, t) = -(1/|t|) sum_i log p(t_i | x, t_<i) of each pair, in nats per piece.

    A picture stands before its texts, so it is read once for all of them that are scored side by side. Only the text
    rows of the head are computed: p is over the pieces and the token that ends a text.

    Args:
        runner: of a transformer that has learnt `template`.
        template: puts the pairs in sequence.
        pairs: (pieces, codes): texts of at least one piece, clipped if too long, and pictures.
        counts_end: whether the token that ends a text is one of its t_i. The paper's t is the text, so it is not.

    Raises:
        UsageError: a text has no pieces, so that there is nothing to take the mean of.
        CogViewError: codes or pieces that the template does not have, or logits that are not finite.

    Paper: section 3.2.
    """
    for number, (pieces, _) in enumerate(pairs, start=1):
        if not len(pieces):
            raise UsageError(
                f"text {number} of {len(pairs)} has no pieces, and no loss: say what is to be seen"
            )
    results = runner.engine.run(
        [loss_request(runner, template, pair, counts_end=counts_end) for pair in pairs]
    )
    nats = [result.nats for result in results if isinstance(result, Drawn) and result.nats is not None]
    return np.array([each.mean() for each in nats], dtype=np.float64)


def loss_request(
    runner: Runner, template: CaptionTemplate, pair: tuple[Pieces, Codes], *, counts_end: bool = False
) -> Request:
    """Return what scores a text after a picture."""
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
