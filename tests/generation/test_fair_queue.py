"""Places go to the client with the fewest, and whoever comes new begins at once."""

from hypothesis import given
from hypothesis import strategies as st

from cogview.generation.fair_queue import FairQueue

ANN, BOB = ("key", "ann"), ("key", "bob")


def taken(queue: FairQueue[str]) -> list[str]:
    found = []
    while (item := queue.take()) is not None:
        found.append(item)
    return found


def test_without_a_limit_all_begin_in_their_order() -> None:
    queue = FairQueue[str]()
    for each in "abc":
        queue.add((), each)
    assert taken(queue) == ["a", "b", "c"]
    assert len(queue) == 0


def test_places_go_to_the_client_who_has_the_fewest() -> None:
    queue = FairQueue[str](4)
    for each in ("a1", "a2", "a3", "a4", "a5"):
        queue.add(ANN, each)
    assert taken(queue) == ["a1", "a2", "a3", "a4"]
    queue.add(BOB, "b1")
    queue.add(BOB, "b2")
    queue.release(ANN)
    queue.release(ANN)
    assert taken(queue) == ["b1", "b2"]
    assert queue.num_held == 4


def test_some_places_wait_for_who_has_none() -> None:
    queue = FairQueue[str](4, num_reserved=1)
    for each in ("a1", "a2", "a3", "a4"):
        queue.add(ANN, each)
    assert taken(queue) == ["a1", "a2", "a3"]
    queue.add(BOB, "b1")
    queue.add(BOB, "b2")
    assert taken(queue) == ["b1"]


def test_accounts_are_alike_however_many_users_they_have() -> None:
    queue = FairQueue[str](4)
    for user in "abcdef":
        queue.add(("many", user), f"many-{user}")
    queue.add(("one", ""), "one-1")
    queue.add(("one", ""), "one-2")
    assert sorted(taken(queue)) == ["many-a", "many-b", "one-1", "one-2"]


def test_what_goes_on_is_before_what_begins() -> None:
    queue = FairQueue[str](1)
    queue.add(ANN, "a1")
    assert taken(queue) == ["a1"]
    queue.add(ANN, "a2")
    queue.add(ANN, "score of a1", is_continuation=True)
    queue.release(ANN)
    assert taken(queue) == ["score of a1"]


def test_what_is_not_wanted_waits_no_longer() -> None:
    queue = FairQueue[str](1)
    for each in ("a1", "a2", "a3"):
        queue.add(ANN, each)
    queue.remove(ANN, lambda item: item == "a2")
    queue.remove(BOB, lambda item: True)
    queue.take()
    queue.release(ANN)
    assert taken(queue) == ["a3"]


def test_clients_take_turns_at_a_single_place() -> None:
    queue = FairQueue[str](1)
    for each in ("a1", "a2", "a3"):
        queue.add(("a",), each)
    begun = [queue.take()]
    queue.add(("b",), "b1")
    queue.add(("c", "x"), "c1")
    queue.add(("c", "y"), "c2")
    for _ in range(5):
        queue.release({"a": ("a",), "b": ("b",), "c": ("c", "x")}[str(begun[-1])[0]])
        begun.append(queue.take())
    assert begun == ["a1", "a2", "b1", "c1", "a3", "c2"]


def test_an_account_with_many_users_leaves_places_for_others() -> None:
    queue = FairQueue[str](16, num_reserved=4)
    for number in range(20):
        queue.add(("many", str(number)), f"many-{number}")
    assert len(taken(queue)) == 14
    queue.add(("one", ""), "one-1")
    assert taken(queue) == ["one-1"]


@given(
    st.integers(1, 5).flatmap(lambda num: st.tuples(st.just(num), st.integers(0, num - 1))),
    st.lists(st.one_of(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), st.none())),
)
def test_places_are_never_more_than_there_are_and_everything_begins_once(
    slots: tuple[int, int], schedule: list[tuple[str, str] | None]
) -> None:
    queue = FairQueue[int](*slots)
    held: list[tuple[str, ...]] = []
    client_of: dict[int, tuple[str, ...]] = {}
    begun: list[int] = []

    def begin() -> None:
        while (item := queue.take()) is not None:
            begun.append(item)
            held.append(client_of[item])

    for number, client in enumerate(schedule):
        if client is not None:
            client_of[number] = client
            queue.add(client, number)
        elif held:
            queue.release(held.pop(0))
        begin()
        assert queue.num_held == len(held) <= slots[0]
    while held:
        queue.release(held.pop(0))
        begin()
    assert sorted(begun) == sorted(client_of)
    assert not queue._turns
    assert not queue._num_waiting
    for each in set(client_of.values()):
        own = [item for item in begun if client_of[item] == each]
        assert own == sorted(own)
