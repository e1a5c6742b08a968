"""The slot cache against a plain model of it, over any sequence of what the engine does to it."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neuro_latent_serving.engine.cache import COLUMN_STEP, ROOMY, SlotCache

HEADS, HEAD_WIDTH = 2, 3
SELF_NAMES = ["past_key_values.0.decoder.key", "past_key_values.0.decoder.value"]
CROSS_NAMES = ["past_key_values.0.encoder.key", "past_key_values.0.encoder.value"]


@dataclass
class Row:
    """What a row must hold: a number a column, from which its keys and values are made."""

    prompt: list[int]
    mask: list[int]
    family: int
    written: list[int] = field(default_factory=list)


def states(numbers: list[int], name: str) -> np.ndarray[Any, Any]:
    """[N, L, H] made of a number a column; another for each tensor."""
    shape = (HEADS, len(numbers), HEAD_WIDTH)
    inside = np.arange(HEADS)[:, None, None] * 0.25 + np.arange(HEAD_WIDTH) * 0.0625
    sign = -1 if name.endswith("value") else 1
    return np.broadcast_to(sign * (np.array(numbers, dtype=np.float32)[None, :, None] + inside), shape).astype("f4")


class CacheMachine(RuleBasedStateMachine):
    """Drives a cache and its model."""

    @initialize(slots=st.integers(1, 9))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.cache = self.make_cache(slots)
        self.rows: list[Row] = []
        self.numbers = iter(range(1, 10**7))
        self.where: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {}

    def make_cache(self, slots: int) -> Any:
        return SlotCache(slots, HEADS, HEAD_WIDTH, SELF_NAMES, CROSS_NAMES)

    def most_columns(self, needed: int) -> float:
        """That tensors may have for rows of this length."""
        return max(2 * (1.25 * needed + 2 * COLUMN_STEP), ROOMY // len(self.rows))

    def most_encoder_columns(self, wide: int) -> float:
        return max(2 * (wide + 16), ROOMY // len(self.rows))

    def fresh(self, count: int) -> list[int]:
        return [next(self.numbers) for _ in range(count)]

    @rule(copies=st.integers(1, 4), wide=st.sampled_from([1, 3, 15, 16, 17, 40, 100]), data=st.data())
    def join(self, copies: int, wide: int, data: st.DataObject) -> None:
        prompt = self.fresh(wide)
        mask = data.draw(st.lists(st.integers(0, 1), min_size=wide, max_size=wide))
        cross = [states(prompt, name)[None] for name in CROSS_NAMES]
        if copies > self.slots - len(self.rows):
            with pytest.raises(ValueError, match=f"of {self.slots} are taken"):
                self.cache.join(cross, np.array(mask), copies)
            return
        new = self.cache.join(cross, np.array(mask), copies)
        assert new == range(len(self.rows), len(self.rows) + copies)
        self.rows += [Row(prompt, mask, prompt[0]) for _ in range(copies)]

    @precondition(lambda self: self.rows)
    @rule(width=st.integers(1, 8), times=st.sampled_from([1, 1, 1, 12, 40]), data=st.data())
    def step(self, width: int, times: int, data: st.DataObject) -> None:
        """As the graph does: every row gets ``width`` columns, of which some count."""
        counts = data.draw(st.lists(st.integers(1, width), min_size=len(self.rows), max_size=len(self.rows)))
        for _ in range(times):
            self.cache.fit(width)
            needed = max(len(row.written) for row in self.rows) + width
            columns = self.cache.layout[0]
            assert needed <= columns <= self.most_columns(needed)
            fed = [self.fresh(width) for _ in self.rows]
            for name, tensor in self.cache.tensors():
                if name in SELF_NAMES:
                    for b, row in enumerate(self.rows):
                        at = len(row.written)
                        tensor[b, :, at : at + width] = states(fed[b], name)
            for b, (row, count) in enumerate(zip(self.rows, counts, strict=True)):
                row.written += fed[b][:count]
            self.cache.lengths_B[:] += np.array(counts)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.integers(0, len(self.rows) - 1), unique=True))
        moved = self.cache.leave(gone)
        stay = {b: moved.get(b, b) for b in range(len(self.rows)) if b not in gone}
        assert sorted(stay.values()) == list(range(len(stay)))  # the first ones, none twice
        assert not set(moved) & set(gone)
        self.rows = [row for _, row in sorted((new, self.rows[old]) for old, new in stay.items())]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        family = data.draw(st.sampled_from([row.family for row in self.rows]))
        own = [b for b, row in enumerate(self.rows) if row.family == family]
        rows = data.draw(st.permutations(own))
        parents = data.draw(st.lists(st.sampled_from(own), min_size=len(own), max_size=len(own)))
        self.cache.reorder(rows, parents)
        written = {row: list(self.rows[parent].written) for row, parent in zip(rows, parents, strict=True)}
        for b, tokens in written.items():
            self.rows[b].written = tokens

    @precondition(lambda self: self.rows)
    @rule(width=st.integers(1, 8))
    def fit(self, width: int) -> None:
        self.cache.fit(width)
        wide = max(len(row.prompt) for row in self.rows)
        assert wide <= self.cache.layout[1] <= self.most_encoder_columns(wide)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        cache = self.cache
        assert cache.rows == len(self.rows) <= self.slots
        assert cache.lengths_B.tolist() == [len(row.written) for row in self.rows]
        for name, tensor in cache.tensors():
            assert len(tensor) == cache.rows
            for b, row in enumerate(self.rows):
                numbers = row.written if name in SELF_NAMES else row.prompt
                np.testing.assert_array_equal(tensor[b, :, : len(numbers)], states(numbers, name))
        for b, row in enumerate(self.rows):
            mask = cache.encoder_mask_BQ[b].tolist()
            assert mask == row.mask + [0] * (len(mask) - len(row.mask))

    @invariant()
    def layout_tells_when_memory_has_moved(self) -> None:
        tensors = [tensor for _, tensor in self.cache.tensors()] + [self.cache.encoder_mask_BQ]
        places = tuple((t.ctypes.data, *t.shape[1:]) for t in tensors) if self.rows else None
        if places is not None:
            assert self.where.setdefault(self.cache.layout, places) == places


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestSlotCache = CacheMachine.TestCase


def joined(slots: int, wide: int) -> SlotCache:
    cache = SlotCache(slots, HEADS, HEAD_WIDTH, SELF_NAMES, CROSS_NAMES)
    cache.join([np.ones((1, HEADS, wide, HEAD_WIDTH), "f4")] * 2, np.ones(wide, dtype=np.int64), 1)
    return cache


def test_memory_grows_with_the_longest_row_and_is_given_back_when_it_has_left() -> None:
    cache = joined(4, 8)
    cache.fit(1)
    small = cache.bytes
    cache.join([np.ones((1, HEADS, 500, HEAD_WIDTH), "f4")] * 2, np.ones(500, dtype=np.int64), 2)
    moves = 0
    for _ in range(512):
        before = cache.reallocations
        cache.fit(1)
        moves += cache.reallocations - before
        cache.lengths_B[1] += 1
    large = cache.bytes
    assert moves < 14, "each growth copies everything"
    assert cache.leave([1]) == {2: 1}
    cache.fit(1)
    assert cache.bytes < large / 1.5, "two short rows need no memory for 512 columns"
    assert small < cache.bytes


def test_a_join_that_finds_no_memory_takes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = joined(4, 8)

    def fail(columns: int) -> None:
        raise MemoryError

    monkeypatch.setattr(cache, "_empty", fail)
    with pytest.raises(MemoryError):
        cache.join([np.ones((1, HEADS, 99, HEAD_WIDTH), "f4")] * 2, np.ones(99, dtype=np.int64), 2)
    assert cache.rows == 1
    assert cache.encoder_mask_BQ[0].sum() == 8


@pytest.mark.parametrize("widths", [(100, 3, 17, 40, 16), (3, 16, 17, 40, 100)])
def test_any_rows_may_leave_one_after_another(widths: tuple[int, ...]) -> None:
    """All ways in which some of five rows leave together, and then one more."""
    subsets = [[b for b in range(5) if bits >> b & 1] for bits in range(32)]
    for first, second in itertools.product(subsets, range(5)):
        cache = SlotCache(5, HEADS, HEAD_WIDTH, SELF_NAMES, CROSS_NAMES)
        for row, wide in enumerate(widths):
            cross = [states([row] * wide, name)[None] for name in CROSS_NAMES]
            cache.join(cross, np.ones(wide, dtype=np.int64), 1)
        cache.fit(8)
        for name, tensor in cache.tensors():
            if name in SELF_NAMES:
                for row in range(5):
                    tensor[row, :, : row + 1] = states([row] * (row + 1), name)
        cache.lengths_B[:] = np.arange(1, 6)
        at = list(range(5))  # which row is where
        for gone in (first, [second] if second < 5 - len(first) else []):
            moved = cache.leave(gone)
            places = {moved.get(b, b): row for b, row in enumerate(at) if b not in gone}
            at = [places[b] for b in range(len(at) - len(gone))]
            cache.fit(8)
            assert cache.lengths_B.tolist() == [row + 1 for row in at]
            for b, row in enumerate(at):
                for name, tensor in cache.tensors():
                    count = row + 1 if name in SELF_NAMES else widths[row]
                    np.testing.assert_array_equal(tensor[b, :, :count], states([row] * count, name))
                assert cache.encoder_mask_BQ[b].sum() == widths[row]
