"""Jobs that draw nothing are taken in turn by client, and one that is cancelled leaves nothing behind."""

import gc
import threading
import weakref

import pytest

from cogview.serving.side_jobs import SideJobs


def test_clients_take_turns() -> None:
    jobs = SideJobs[int]()
    for number in range(3):
        jobs.add(number, ("ann", ""), lambda: 0)
    assert jobs.take()[0] == 0
    jobs.add(3, ("bob", ""), lambda: 0)
    jobs.add(4, ("bob", "x"), lambda: 0)
    assert [jobs.take()[0] for _ in range(4)] == [1, 3, 2, 4]


@pytest.mark.slow
def test_one_that_is_cancelled_lets_go_of_what_it_was_given() -> None:
    class Given:
        pass

    jobs = SideJobs[object]()
    given = Given()
    kept = weakref.ref(given)
    jobs.add(1, ("ann",), lambda given=given: given)
    jobs.add(2, ("ann",), lambda: 2)
    del given
    jobs.cancel(1)
    jobs.cancel(1)
    gc.collect()
    assert kept() is None
    assert jobs.take()[0] == 2


def test_the_thread_that_takes_waits_for_what_comes() -> None:
    jobs = SideJobs[int]()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(jobs.take()[1]()))
    thread.start()
    jobs.add(1, ("ann",), lambda: 7)
    thread.join(10)
    assert found == [7]
