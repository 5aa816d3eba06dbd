"""What a process takes itself for, by the variables that torchrun sets."""

import pytest

from cogview.data.ranks import Ranks
from cogview.errors import UsageError


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "contradict each other"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "contradict each other"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "must be whole numbers"),
        ({"WORLD_SIZE": "2"}, "set or unset 'RANK'"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(variables: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Ranks.from_environment(variables)


def test_without_ranks_a_process_works_alone() -> None:
    assert Ranks.from_environment({"PATH": "/bin"}) == Ranks()
    variables = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert Ranks.from_environment(variables) == Ranks(rank=5, num_ranks=8, local_rank=1)
