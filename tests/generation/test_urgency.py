"""Nobody is hurried for more than about half of the steps."""

from hypothesis import given
from hypothesis import strategies as st

from cogview.generation.urgency import UrgencyLimit


def test_what_comes_together_is_hurried_together_and_then_none_is_for_as_long() -> None:
    limit = UrgencyLimit()
    may_join = []
    for is_urgent in [False, *[True] * 6, *[False] * 8]:
        limit.begin_step(is_urgent)
        may_join.append(limit.may_join)
    assert may_join == [True, *[True] * 3, *[False] * 3, *[False] * 6, *[True] * 2]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20))
def test_half_of_the_steps_are_left_for_others_whoever_comes(comes: list[int], num_steps: int) -> None:
    limit = UrgencyLimit()
    left: list[int] = []
    num_urgent = num_others = 0
    for num in comes:  # so many come at each step, and are hurried for some steps if they may be
        left = [each - 1 for each in left if each > 1]
        limit.begin_step(bool(left))
        for _ in range(num):
            if limit.may_join:
                left.append(num_steps)
                limit.join()
        num_urgent += bool(left)
        num_others += not left
    assert num_urgent <= num_others + num_steps + 5
