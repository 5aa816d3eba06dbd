"""Errors that a user can cause and mend: one line that says what was wrong and what to do."""


class CogViewError(Exception):
    """Something went wrong that the user can mend; the command line prints it and exits with 1."""


class UsageError(CogViewError):
    """The request itself cannot be carried out as given; the command line exits with 2."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return a text as a terminal may show it, control characters escaped: texts and names may be anybody's."""
    return text.translate(_CONTROLS)
