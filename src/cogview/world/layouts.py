"""Random layouts of scenes on the lattice."""

import random

from cogview.world.scenes import LATTICE_CELLS, NAMED_SIZES, SMALL_CELLS

Place = tuple[int, int]
"""Column and row of a thing's upper left cell."""

SIZE_PAIRS = ((4, 9), (4, 7), (7, 9), (4, 4))
"""Sides of two things, at least one of them a named size, that fit the lattice together."""


def draw_place(rng: random.Random, size: int) -> Place:
    """Return the place of a single thing, with a margin."""
    furthest = LATTICE_CELLS - 1 - size
    return rng.randint(1, furthest), rng.randint(1, furthest)


def draw_relation_places(rng: random.Random) -> list[Place]:
    """Return the places of two icons side by side or one above the other, in random order."""
    near, far = rng.randint(0, 1), rng.randint(8, 9)
    middle = rng.randint(4, 5)
    places = [(near, middle), (far, middle)] if rng.random() < 0.5 else [(middle, near), (middle, far)]
    rng.shuffle(places)
    return places


def draw_tidy_places(rng: random.Random, number: int) -> list[Place]:
    """Return the places of 2-4 icons in a row, a column, a diagonal, a triangle or a square."""
    near, far = rng.randint(0, 1), rng.randint(8, 9)
    middle = rng.randint(4, 5)
    layouts = {
        2: [
            [(near, middle), (far, middle)],
            [(middle, near), (middle, far)],
            [(near, near), (far, far)],
            [(far, near), (near, far)],
        ],
        3: [[(middle, near), (near, far), (far, far)], [(near, near), (far, near), (middle, far)]],
        4: [[(near, near), (far, near), (near, far), (far, far)]],
    }
    return rng.choice(layouts[number])


def draw_rows(rng: random.Random, numbers: list[int]) -> tuple[int, list[Place]]:
    """Return the side of icons in two rows, and their places row by row.

    Args:
        rng: random generator.
        numbers: icons in each row, 1 to 3.
    """
    size = SMALL_CELLS if max(numbers) <= 2 else NAMED_SIZES["small"]
    gap = 1 if size == SMALL_CELLS else rng.randint(1, 2)
    above = rng.randint(0, 1) if size == SMALL_CELLS else rng.randint(2, 4)
    below = above + size + (gap if size == SMALL_CELLS else rng.randint(gap, 3))
    places = []
    for number, row in zip(numbers, (above, below), strict=True):
        width = number * size + (number - 1) * gap
        left = (LATTICE_CELLS - width) // 2
        places += [(left + index * (size + gap), row) for index in range(number)]
    return size, places


def draw_groups(rng: random.Random, numbers: list[int]) -> tuple[int, list[Place]]:
    """Return the side and places of two groups' icons, one group above or to the left of the other."""
    size, places = draw_rows(rng, numbers)
    if rng.random() < 0.5:
        places = [(row, column) for column, row in places]
    return size, places


def draw_places_of_sizes(rng: random.Random, sizes: tuple[int, int]) -> list[Place]:
    """Return the places of two icons, side by side with a common lower edge, or one above the other."""
    first, second = sizes
    room = LATTICE_CELLS - first - second
    start = rng.randint(0, min(room, 2))
    next_start = start + first + rng.randint(0, min(room - start, 2))
    larger = max(sizes)
    side = rng.randint(max((LATTICE_CELLS - larger) // 2 - 1, 0), (LATTICE_CELLS - larger + 1) // 2)
    if rng.random() < 0.6:
        return [(start, side + larger - first), (next_start, side + larger - second)]
    return [(side + (larger - first) // 2, start), (side + (larger - second) // 2, next_start)]
