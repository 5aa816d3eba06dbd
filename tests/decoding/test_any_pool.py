"""Whatever rows do with the pool, each reads what it wrote, as if it had its keys and values to itself."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cogview.decoding.pool import PAGE, PagePool, Row
from cogview.transformer.config import TransformerConfig

pytestmark = pytest.mark.slow

CONFIG = TransformerConfig(num_layers=2, hidden_size=4, num_heads=2, vocabulary_size=8, num_positions=8)
LENGTHS = st.integers(1, 3 * PAGE) | st.sampled_from([PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])


class Rows(RuleBasedStateMachine):
    """Rows are made, written, cut back, begun as others and freed; a list says what each should hold."""

    rows = Bundle("rows")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(CONFIG, num_pages=1)
        self.held: dict[Row, list[int]] = {}
        self.num_fixed: dict[Row, int] = {}  # tokens that another row begins with
        self.num_written = 0

    @rule(target=rows, max_tokens=LENGTHS)
    def make(self, max_tokens: int) -> Row:
        row = Row(self.pool, max_tokens)
        row.reserve()
        self.held[row], self.num_fixed[row] = [], 0
        return row

    @rule(row=rows, num=LENGTHS)
    def write(self, row: Row, num: int) -> None:
        for place in range(row.length, min(row.length + num, row.max_tokens)):
            self.num_written += 1
            page, at = row.pages[place // PAGE], place % PAGE
            self.pool.keys[:, page, :, :, at] = self.num_written
            self.pool.values[:, page, :, at] = -self.num_written
            self.held[row].append(self.num_written)
        row.length = len(self.held[row])

    @rule(row=rows, num=LENGTHS)
    def cut_back(self, row: Row, num: int) -> None:
        row.length = max(self.num_fixed[row], row.length - num)
        del self.held[row][row.length :]

    @rule(target=rows, row=rows, num=LENGTHS, more=LENGTHS)
    def share_prefix(self, row: Row, num: int, more: int) -> object:
        num = min(num, row.length)
        if not num:
            return multiple()
        other = Row(self.pool, num + more)
        other.share_prefix(row, num)
        self.held[other] = self.held[row][:num]
        self.num_fixed[other] = num
        self.num_fixed[row] = max(num, self.num_fixed[row])
        return other

    @rule(row=consumes(rows))
    def free(self, row: Row) -> None:
        row.free()
        del self.held[row], self.num_fixed[row]

    @invariant()
    def each_holds_what_it_wrote(self) -> None:
        for row, held in self.held.items():
            assert row.length == len(held)
            assert len(row.pages) == row.num_pages
            wanted = torch.tensor(held, dtype=torch.float32)
            keys, values = self.pool.keys[:, row.pages], self.pool.values[:, row.pages]
            keys, values = keys.movedim(-1, 2).flatten(1, 2), values.movedim(3, 2).flatten(1, 2)
            assert (keys[:, : row.length] == wanted[:, None, None]).all()
            assert (values[:, : row.length] == -wanted[:, None, None]).all()
            assert keys.isfinite().all()
            assert values.isfinite().all()

    @invariant()
    def pages_are_held_or_free(self) -> None:
        pages = {page for row in self.held for page in row.pages}
        assert pages.isdisjoint(self.pool._free)
        assert len(pages) + self.pool.num_free == self.pool.num_pages
        assert len(set(self.pool._free)) == self.pool.num_free

    def teardown(self) -> None:
        for row in list(self.held):
            self.free(row)
        self.pages_are_held_or_free()


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
