"""How much a worker takes on at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.pacing import Pace


def test_quick_full_batches_grow_to_the_most() -> None:
    pace = Pace(1.0, first=10, most=35)
    for expected in (20, 35, 35):
        pace.took(pace.records, 0.1)
        assert pace.records == expected


def test_quick_small_batches_say_nothing_about_large_ones() -> None:
    pace = Pace(1.0, first=10)
    pace.took(3, 0.001)
    assert pace.records == 10


def test_a_slow_batch_makes_the_next_one_fit() -> None:
    pace = Pace(1.0, first=100)
    pace.took(100, 4.0)
    assert pace.records == 25


@given(st.floats(0.001, 1_000), st.integers(1, 5_000))
def test_however_slow_an_event_is_the_next_batch_takes_the_time_or_one_event(
    seconds_each: float, first: int
) -> None:
    pace = Pace(1.0, first=first)
    for _ in range(40):
        pace.took(pace.records, pace.records * seconds_each)
        assert pace.records >= 1
    assert pace.records == 1 or pace.records * seconds_each <= 1.0 + 1e-9
