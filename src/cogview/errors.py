"""Errors that users can cause and fix: one line with what was wrong and what to do."""


class CogViewError(Exception):
    """An error that the user can fix; the command line prints it and exits with 1."""


class UsageError(CogViewError):
    """A request that cannot be carried out as given; the command line exits with 2."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Escape control characters of untrusted text for a terminal."""
    return text.translate(_CONTROLS)
