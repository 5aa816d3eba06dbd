"""Rank of this process among those started by `torchrun`."""

from collections.abc import Mapping
from dataclasses import dataclass

from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rank of a process and number of ranks.

    Args:
        rank: number of the process, from 0.
        num_ranks: number of processes.
        local_rank: number among the processes of the machine, which is also the GPU's.

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
        """Read RANK, WORLD_SIZE and LOCAL_RANK as `torchrun` sets them; without them, one process.

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
        """Return whether a work item belongs to this rank; items are dealt out in turn."""
        return number % self.num_ranks == self.rank
