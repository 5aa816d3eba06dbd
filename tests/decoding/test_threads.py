"""The number of threads is found by trying: where it pays, after changes, and seldom where it does not."""

import random
from collections.abc import Callable

import pytest
import torch

from cogview.decoding.threads import ThreadChoice, thread_counts, threads

IDLE: dict[int, float] = {8: 1.0, 4: 1.4, 2: 2.5, 1: 4.5}
BUSY: dict[int, float] = {8: 40.0, 4: 20.0, 2: 9.0, 1: 6.0}


def run(choice: ThreadChoice, num_passes: int, cost: Callable[[int], float]) -> list[int]:
    """Let passes cost what they cost, and return the numbers of threads they ran on."""
    ran = []
    for _ in range(num_passes):
        num = choice.next()
        choice.learn(num, 10.0, 10.0 * cost(num))
        ran.append(num)
    return ran


def test_numbers_halve_down_to_one() -> None:
    assert thread_counts(8) == (8, 4, 2, 1)
    assert thread_counts(6) == (6, 3, 1)
    assert thread_counts(1) == (1,)


@pytest.mark.parametrize("most", [1, 2, 6, 8])
def test_all_are_kept_where_they_are_fastest_and_others_are_seldom_tried(most: int) -> None:
    choice = ThreadChoice(most)
    ran = run(choice, 1000, lambda num: 1 / num)
    assert choice.best == most
    assert sum(num != most for num in ran) <= 12


def test_fewer_are_taken_beside_busy_cores_and_all_again_afterwards() -> None:
    choice = ThreadChoice(8)
    run(choice, 100, IDLE.__getitem__)
    assert choice.best == 8
    ran = run(choice, 60, BUSY.__getitem__)
    assert choice.best == 1
    assert sum(num == 8 for num in ran) <= 8
    run(choice, 100, IDLE.__getitem__)
    assert choice.best == 8


def test_bad_tries_become_rare() -> None:
    choice = ThreadChoice(2)
    ran = run(choice, 2000, {2: 10.0, 1: 1.0}.__getitem__)
    assert sum(num == 2 for num in ran[100:]) <= 6


def test_tries_of_more_threads_take_little_time_beside_busy_cores() -> None:
    """One of them takes fifty times a usual pass, and costs of usual ones vary."""
    choice, generator = ThreadChoice(2), random.Random(0)
    run(choice, 40, {2: 1.0, 1: 1.6}.__getitem__)
    run(choice, 10, {2: 100.0, 1: 2.0}.__getitem__)
    ran = run(choice, 1000, lambda num: 100.0 if num == 2 else generator.choice([1.0, 2.0, 5.0]))
    assert 1 <= sum(num == 2 for num in ran) <= 3
    ran = run(choice, 600, {2: 1.0, 1: 1.6}.__getitem__)
    assert ran[-1] == 2


def test_the_callers_number_stands_afterwards() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
