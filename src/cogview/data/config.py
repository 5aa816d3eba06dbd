"""What training sequences leave out. torch is not imported here."""

from dataclasses import dataclass

from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """What training sequences leave out, so that the rest is learnt from the text. Beyond the paper; off by default.

    Args:
        dropped_texts: the share of sequences that are learnt without their text, so that the model can also draw
            whatever there is: what guidance compares with.
        masked_codes: the largest share of a picture's codes that are read as [MASK]; see
            `cogview.data.loader.MaskedCodeBatches`. Of super-resolution, of the high codes.
        kept_codes: codes of a picture that a sequence holds, drawn anew each time: texts are learnt fast from few; see
            `cogview.data.loader.FewCodeBatches`. All by default.
        weight_of_changes: how much rather one of them is a code that differs from the one before it.

    Raises:
        UsageError: shares that are none.
    """

    dropped_texts: float = 0.0
    masked_codes: float = 0.0
    kept_codes: int | None = None
    weight_of_changes: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dropped_texts", "masked_codes"):
            check_share(name, getattr(self, name))


def check_share(name: str, share: float) -> None:
    """Refuse what is no share.

    Args:
        name: of the setting, for the message.
        share: of 0 to 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"{name} must be a share of 0 to 1, got {share}")
