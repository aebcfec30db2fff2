"""Ids are new wherever they are drawn."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from uuid import RFC_4122, UUID

from infra.ids import new_id


def draw(count: int) -> list[UUID]:
    return [new_id() for _ in range(count)]


def test_they_are_uuids_that_tell_the_time() -> None:
    before = time.time_ns() // 1_000_000
    drawn = draw(1_000)
    after = time.time_ns() // 1_000_000
    assert all(id_.version == 7 and id_.variant == RFC_4122 for id_ in drawn)
    times = [id_.int >> 80 for id_ in drawn]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] <= after


def test_all_their_other_bits_are_random() -> None:
    drawn = [id_.int for id_ in draw(1_000)]
    always = functools.reduce(int.__and__, drawn)
    sometimes = functools.reduce(int.__or__, drawn)
    free = 2**80 - 1 & ~(0xF << 76 | 3 << 62)
    assert always & free == 0
    assert sometimes & free == free


def test_threads_never_draw_the_same() -> None:
    with ThreadPoolExecutor(8) as threads:
        drawn = [id_ for some in threads.map(draw, [2_000] * 8) for id_ in some]
    assert len(set(drawn)) == len(drawn)


def test_a_forked_process_draws_its_own() -> None:
    draw(1)  # so that some lie ready
    with get_context("fork").Pool(2) as processes:
        drawn = [id_ for some in processes.map(draw, [200] * 4) for id_ in some]
    drawn += draw(200)
    assert len(set(drawn)) == len(drawn)
