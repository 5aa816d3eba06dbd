"""Limit on how long some requests may run before all others."""

_JOIN_STEPS = 4


class UrgencyLimit:
    """Lets requests be urgent for at most about half of all steps, so that no other request starves.

    Requests that come within a few steps are urgent together. Then none is for as many steps as that took.
    """

    def __init__(self) -> None:
        self._num_urgent_steps = 0
        self._num_pause_steps = 0

    @property
    def may_join(self) -> bool:
        """Whether one more request may become urgent now."""
        return self._num_urgent_steps < _JOIN_STEPS and not self._num_pause_steps

    def join(self) -> None:
        """Count the step in which a request becomes urgent, however soon that ends."""
        self._num_urgent_steps = max(self._num_urgent_steps, 1)

    def begin_step(self, is_urgent: bool) -> None:
        """Count a step.

        Args:
            is_urgent: whether a request that joined earlier is still urgent.
        """
        if is_urgent:
            self._num_urgent_steps += 1
        elif self._num_urgent_steps:
            self._num_urgent_steps, self._num_pause_steps = 0, self._num_urgent_steps
        elif self._num_pause_steps:
            self._num_pause_steps -= 1
