"""Partitions that do not move."""

from __future__ import annotations

from workers.sieve import Hole
from workers.watchdogs import HoleWatch, StallWatch


class TestHoles:
    def test_a_hole_is_told_of_once_and_only_after_a_while(self) -> None:
        watch, hole = HoleWatch(5.0), Hole(3, 7)
        assert watch.look({0: hole}, 100.0) == ({}, [])
        assert watch.look({0: hole}, 104.9) == ({}, [])
        assert watch.look({0: hole}, 105.0) == ({0: hole}, [])
        assert watch.look({0: hole}, 200.0) == ({}, [])

    def test_that_it_is_filled_is_told_if_it_was_told_of(self) -> None:
        watch = HoleWatch(5.0)
        watch.look({0: Hole(3, 7), 1: Hole(1, 2)}, 0.0)
        assert watch.look({0: Hole(3, 7)}, 5.0) == ({0: Hole(3, 7)}, [])
        assert watch.look({}, 6.0) == ({}, [0])

    def test_one_that_is_being_filled_has_its_time_from_then_on(self) -> None:
        watch = HoleWatch(5.0)
        watch.look({0: Hole(3, 7)}, 0.0)
        assert watch.look({0: Hole(4, 7)}, 5.0) == ({}, [])
        assert watch.look({0: Hole(4, 7)}, 9.0) == ({}, [])
        assert watch.look({0: Hole(4, 7)}, 10.0) == ({0: Hole(4, 7)}, [])


class TestStalls:
    def test_a_partition_with_something_to_read_has_to_move(self) -> None:
        watch = StallWatch(30.0)
        assert watch.look({0: (5, 9), 1: (5, 9)}, 0.0) == set()
        assert watch.look({0: (5, 9), 1: (6, 9)}, 29.0) == set()
        assert watch.look({0: (5, 9), 1: (6, 9)}, 30.0) == {0}

    def test_one_that_has_read_everything_may_stand_still(self) -> None:
        watch = StallWatch(30.0)
        watch.look({0: (9, 9)}, 0.0)
        assert watch.look({0: (9, 9)}, 100.0) == set()
        assert watch.look({0: (9, 10)}, 101.0) == set()
        assert watch.look({0: (9, 10)}, 131.0) == {0}

    def test_one_that_does_not_know_where_it_is_stands_still(self) -> None:
        watch = StallWatch(30.0)
        watch.look({0: (None, 9), 1: (None, 0)}, 0.0)
        assert watch.look({0: (None, 9), 1: (None, 0)}, 30.0) == {0}

    def test_a_partition_that_comes_back_begins_anew(self) -> None:
        watch = StallWatch(30.0)
        watch.look({0: (5, 9)}, 0.0)
        watch.look({}, 10.0)
        assert watch.look({0: (5, 9)}, 40.0) == set()
        watch.forget()
        assert watch.look({0: (5, 9)}, 80.0) == set()
