"""What comes of an evaluation. torch is not imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What came of an evaluation.

    Args:
        facts: the figures, and what they are of, as plain data: what its file of JSON holds, where there is one.
        files: those that were written, by what they hold.
    """

    facts: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
