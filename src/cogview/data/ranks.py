"""Which share of the work is this process's, among those that `torchrun` started."""

from collections.abc import Mapping
from dataclasses import dataclass

from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """A process among others that do the same work.

    Args:
        rank: its number, from 0.
        num_ranks: how many there are.
        local_rank: its number among those on the same machine, which is the number of its GPU.

    Raises:
        UsageError: the numbers contradict each other.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_ranks or self.local_rank < 0:
            raise UsageError(
                f"RANK={self.rank}, WORLD_SIZE={self.num_ranks}, LOCAL_RANK={self.local_rank} contradict each other: "
                f"the ranks of {self.num_ranks} processes are 0 to {self.num_ranks - 1}; unset all three to work alone"
            )

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Ranks":
        """Return what `torchrun` says in the environment, or a process alone if it says nothing.

        Args:
            variables: of the environment; RANK, WORLD_SIZE and LOCAL_RANK count.

        Raises:
            UsageError: they are no numbers or contradict each other.
        """
        if "WORLD_SIZE" not in variables and "RANK" not in variables:
            return cls()
        try:
            return cls(
                rank=int(variables["RANK"]),
                num_ranks=int(variables["WORLD_SIZE"]),
                local_rank=int(variables.get("LOCAL_RANK", 0)),
            )
        except KeyError as error:
            raise UsageError(f"of RANK and WORLD_SIZE only one is set: set or unset {error}") from error
        except ValueError as error:
            raise UsageError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error})") from error

    def takes(self, number: int) -> bool:
        """Return whether a piece of the work is this process's: they are dealt out in turn."""
        return number % self.num_ranks == self.rank
