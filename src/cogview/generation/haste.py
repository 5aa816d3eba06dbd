"""For how long some requests may be worked on before all others."""

_JOIN_STEPS = 4


class Haste:
    """Lets requests be hurried for at most about half of the steps: the others are never kept waiting for ever.

    Requests are hurried together if they come within a few steps. Afterwards none is for as many steps as that took.
    """

    def __init__(self) -> None:
        self._num_hasty = 0
        self._num_rests = 0

    @property
    def may_join(self) -> bool:
        """Return whether one more request may be hurried now."""
        return self._num_hasty < _JOIN_STEPS and not self._num_rests

    def join(self) -> None:
        """Count the step in which a request is hurried, however soon that ends."""
        self._num_hasty = max(self._num_hasty, 1)

    def begin_step(self, is_hasty: bool) -> None:
        """Count a step.

        Args:
            is_hasty: whether a request is hurried that joined before.
        """
        if is_hasty:
            self._num_hasty += 1
        elif self._num_hasty:
            self._num_hasty, self._num_rests = 0, self._num_hasty
        elif self._num_rests:
            self._num_rests -= 1
