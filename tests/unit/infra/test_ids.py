"""Ids are new wherever they are drawn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from uuid import RFC_4122, UUID

from infra.ids import new_id


def draw(count: int) -> list[UUID]:
    return [new_id() for _ in range(count)]


def test_they_are_random_uuids() -> None:
    assert all(id_.version == 4 and id_.variant == RFC_4122 for id_ in draw(1_000))


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
