"""Errors that users can cause and fix: one line with what was wrong and what to do."""


class CogViewError(Exception):
    """An error that the user can fix; the command line prints it and exits with 1."""


class UsageError(CogViewError):
    """A request that cannot be carried out as given; the command line exits with 2."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def shortened(text: str, max_characters: int = 40) -> str:
    """Return a text in one line, or its beginning with three dots."""
    text = " ".join(text.split())
    return text if len(text) <= max_characters else f"{text[:max_characters]}..."


def printable(text: str) -> str:
    """Escape control characters of untrusted text for a terminal."""
    return text.translate(_CONTROLS)
