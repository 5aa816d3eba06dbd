"""Errors that a user can cause and mend: one line that says what was wrong and what to do."""


class CogViewError(Exception):
    """Something went wrong that the user can mend; the command line prints it and exits with 1."""


class UsageError(CogViewError):
    """The request itself cannot be carried out as given; the command line exits with 2."""
