"""Result of an evaluation; torch is not imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures of an evaluation and the files it wrote.

    Args:
        facts: the figures and their settings as plain data, equal to the JSON file if one is written.
        files: the written files by content.
    """

    facts: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
