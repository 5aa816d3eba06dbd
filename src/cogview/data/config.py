"""Settings of masking and dropping in training sequences."""

from dataclasses import dataclass

from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Texts and codes that training sequences leave out. Beyond the paper; off by default.

    Args:
        dropped_texts: share of sequences trained without their text, for guidance.
        masked_codes: largest share of a picture's codes replaced by [MASK]; see
            `cogview.data.loader.MaskedCodeBatches`. For super-resolution, of the high-resolution codes.
        kept_codes: codes per sequence, drawn anew each time, since few teach the text faster; see
            `cogview.data.loader.FewCodeBatches`. All by default.
        weight_of_changes: relative weight of drawing a code that differs from the one before it.

    Raises:
        UsageError: a share is outside 0..1.
    """

    dropped_texts: float = 0.0
    masked_codes: float = 0.0
    kept_codes: int | None = None
    weight_of_changes: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dropped_texts", "masked_codes"):
            check_share(name, getattr(self, name))


def check_share(name: str, share: float) -> None:
    """Check that a share lies in 0..1.

    Args:
        name: name of the setting, for the message.
        share: the share.

    Raises:
        UsageError: it does not.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"{name} must be a share of 0 to 1, got {share}")
