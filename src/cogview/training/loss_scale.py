"""Dynamic loss scaling for fp16."""

from collections.abc import Mapping

from cogview.training.config import LossScaleConfig


class LossScale:
    """A scale that doubles while no gradient overflows, and halves when one does.

    Args:
        config: initial scale and its dynamics.

    Paper: 2.4; "dynamic loss scale" as in the release.
    """

    def __init__(self, config: LossScaleConfig) -> None:
        self._config = config
        self.value = config.initial
        self.is_exhausted = False
        """Whether the last step overflowed although the factor cannot get smaller."""
        self._good_steps = 0
        self._overflows_left = config.hysteresis

    def update(self, overflowed: bool) -> None:
        """Update the scale after a step."""
        self.is_exhausted = False
        if not overflowed:
            self._good_steps += 1
            if self._good_steps == self._config.window:
                self.value *= 2
                self._good_steps, self._overflows_left = 0, self._config.hysteresis
            return
        self._good_steps = 0
        self._overflows_left = max(0, self._overflows_left - 1)
        if not self._overflows_left:
            self.is_exhausted = self.value == self._config.floor
            self.value = max(self.value / 2, self._config.floor)

    def state(self) -> dict[str, float]:
        """Return the state as plain numbers."""
        return {
            "value": self.value,
            "good_steps": self._good_steps,
            "overflows_left": self._overflows_left,
        }

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what `state` returned."""
        self.value = float(state["value"])
        self._good_steps, self._overflows_left = int(state["good_steps"]), int(state["overflows_left"])
        self.is_exhausted = False
