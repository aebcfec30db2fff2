"""Whatever the owner of the tables does to the log is found, and named by position and kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.proof.leaves import COLUMNS, leaf
from infra.proof.locating import Verdict
from infra.proof.notes import NotTrusted
from infra.proof.tree import Growth, leaf_hash
from infra.proof.verifying import Kind
from tests.integration.proof.ground import Ground

pytestmark = pytest.mark.database

Fill = Callable[[int], Ground]

SIZE = 700
ANOTHER = {
    "position": "position",  # has tests of its own
    "stream_id": "gen_random_uuid()",
    "version": "version + 1",
    "class_version": "class_version + 1",
    "partition_key": "gen_random_uuid()",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "recorded_at": "recorded_at - interval '1 microsecond'",
    "command_id": "gen_random_uuid()",
    "correlation_id": "gen_random_uuid()",
    "causation_id": "CASE WHEN causation_id IS NULL THEN gen_random_uuid() END",
    "topic": "topic || 'x'",
    "actor": "upper(actor)",
    "reason": "CASE WHEN reason IS NULL THEN '' END",
    "traceparent": "NULL",
    "state": "state || ' '::bytea",
}


@pytest.fixture
def sealed(filled: Fill) -> Ground:
    ground = filled(SIZE)
    ground.seal()
    assert ground.verify() == Verdict(SIZE, SIZE)
    return ground


def only(verdict: Verdict) -> tuple[Kind, int, int]:
    (fault,) = verdict.faults
    return fault.kind, fault.first, fault.last


def unprotected(ground: Ground) -> None:
    ground.query("ALTER TABLE events DROP CONSTRAINT events_pkey")


def renumbered(ground: Ground, condition: str, by: int) -> None:
    ground.query(f"UPDATE events SET position = position + {by} WHERE {condition}")


def retiled(ground: Ground) -> None:
    """The stored tree is made to fit the log as it is now."""

    growth = Growth()
    ground.query("DELETE FROM tile")
    for row in ground.rows():
        for level, index, hashes in growth.add(leaf_hash(leaf(row))):
            ground.query(
                "INSERT INTO tile VALUES (%s, %s, %s)"
                " ON CONFLICT (level, index) DO UPDATE SET hashes = EXCLUDED.hashes",
                [level, index, hashes],
            )


def test_there_is_a_change_for_every_column() -> None:
    assert ANOTHER.keys() == set(COLUMNS)


def test_a_change_of_any_column_is_found(sealed: Ground) -> None:
    for place, column in enumerate(COLUMNS[1:]):
        position = [1, 256, 257, 512, 513, SIZE][place % 6]
        before = sealed.rows()[position - 1]
        sealed.query(
            f"UPDATE events SET {column} = {ANOTHER[column]} WHERE position = %s", [position]
        )
        assert sealed.rows()[position - 1] != before
        assert only(sealed.verify()) == (Kind.CHANGED, position, position), column
        value = getattr(before, column)
        sealed.query(f"UPDATE events SET {column} = %s WHERE position = %s", [value, position])
        assert sealed.verify().faults == []


def test_the_first_of_several_changes_is_named(sealed: Ground) -> None:
    sealed.query("UPDATE events SET actor = '' WHERE position IN (600, 300, 301, 699)")
    assert only(sealed.verify()) == (Kind.CHANGED, 300, 300)


@pytest.mark.parametrize("position", [1, 256, 400, SIZE])
def test_a_missing_event_is_found(sealed: Ground, position: int) -> None:
    sealed.query("DELETE FROM events WHERE position = %s", [position])
    assert only(sealed.verify()) == (Kind.MISSING, position, position)


def test_a_missing_event_is_found_when_those_after_it_have_moved_up(sealed: Ground) -> None:
    unprotected(sealed)
    sealed.query("DELETE FROM events WHERE position = 400")
    renumbered(sealed, "position > 400", -1)
    sealed.query("UPDATE head SET position = position - 1")
    assert only(sealed.verify()) == (Kind.MISSING, 400, 400)


@pytest.mark.parametrize("position", [1, 255, 256, 400])
def test_an_event_that_was_slipped_in_is_found(sealed: Ground, position: int) -> None:
    unprotected(sealed)
    renumbered(sealed, f"position >= {position}", 1)
    others = [name for name in COLUMNS if name not in ("position", "stream_id")]
    sealed.query(
        f"INSERT INTO events (position, stream_id, {', '.join(others)})"
        f" SELECT {position}, gen_random_uuid(), {', '.join(others)} FROM events"
        " WHERE position = 650"
    )
    sealed.query("UPDATE head SET position = position + 1")
    assert only(sealed.verify()) == (Kind.INSERTED, position, position)


def test_an_event_beyond_the_head_is_found(sealed: Ground) -> None:
    sealed.record(1)
    sealed.query("UPDATE head SET position = position - 1")
    assert only(sealed.verify()) == (Kind.INSERTED, SIZE + 1, SIZE + 1)


def test_a_head_beyond_the_events_is_found(sealed: Ground) -> None:
    sealed.query("UPDATE head SET position = position + 2")
    assert only(sealed.verify()) == (Kind.MISSING, SIZE + 1, SIZE + 1)


def test_a_position_that_is_there_twice_is_found(sealed: Ground) -> None:
    unprotected(sealed)
    sealed.query("ALTER TABLE events DROP CONSTRAINT events_stream_id_version_key")
    sealed.query("INSERT INTO events SELECT * FROM events WHERE position = 300")
    assert only(sealed.verify()) == (Kind.INSERTED, 300, 300)


@pytest.mark.parametrize(("first", "second"), [(300, 301), (256, 257), (10, 690)])
def test_events_that_have_changed_places_are_found(sealed: Ground, first: int, second: int) -> None:
    unprotected(sealed)
    sealed.query(
        f"UPDATE events SET position = {first + second} - position"
        f" WHERE position IN ({first}, {second})"
    )
    verdict = sealed.verify()
    assert only(verdict) == (Kind.OUT_OF_ORDER, first, first)
    assert f"{second:,}" in verdict.faults[0].text


def test_what_came_after_the_last_checkpoint_is_told_apart(sealed: Ground) -> None:
    sealed.record(40)
    assert sealed.verify() == Verdict(SIZE + 40, SIZE)
    sealed.query("DELETE FROM events WHERE position = 720")
    assert only(sealed.verify()) == (Kind.MISSING, 720, 720)


def test_changed_tiles_are_no_evidence_against_the_events(sealed: Ground) -> None:
    sealed.query(
        "UPDATE tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 255)"
        " WHERE level = 0 AND index = 1"
    )
    verdict = sealed.verify()
    assert (verdict.proven, verdict.faults) == (SIZE, [])
    assert verdict.tiles == ["tile 1 of level 0 is not that of its events"]


def test_a_change_is_located_beside_changed_tiles(sealed: Ground) -> None:
    sealed.query("UPDATE events SET actor = '' WHERE position = 600")
    sealed.query(
        "UPDATE tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 255)"
        " WHERE level = 0 AND index = 0"
    )
    assert only(sealed.verify()) == (Kind.CHANGED, 600, 600)


def test_a_change_with_its_own_tile_rewritten_is_located_by_the_tile_above(sealed: Ground) -> None:
    ((before,),) = sealed.query("SELECT hashes FROM tile WHERE level = 1 AND index = 0")
    sealed.query("UPDATE events SET actor = '' WHERE position = 300")
    retiled(sealed)
    sealed.query("UPDATE tile SET hashes = %s WHERE level = 1", [bytes(before)])
    sealed.query("UPDATE tile SET hashes = set_byte(hashes, 7, 1) WHERE level = 0 AND index = 1")
    assert only(sealed.verify()) == (Kind.UNKNOWN, 257, 512)


def test_a_change_with_all_tiles_rewritten_lies_between_two_checkpoints(sealed: Ground) -> None:
    sealed.record(50)
    sealed.seal()
    sealed.record(50)
    sealed.seal()
    sealed.query("UPDATE events SET actor = '' WHERE position = 720")
    retiled(sealed)
    verdict = sealed.verify()
    assert only(verdict) == (Kind.UNKNOWN, SIZE + 1, SIZE + 50)
    assert verdict.proven == SIZE


def test_tiles_and_checkpoints_by_another_key_are_not_trusted(
    sealed: Ground, tmp_path: Path
) -> None:
    saved, trusted = sealed.seal(), sealed.key.verifying
    sealed.query("UPDATE events SET actor = '' WHERE position = 300")
    retiled(sealed)
    sealed.query("DELETE FROM checkpoint; DELETE FROM tile; DELETE FROM seal_key")
    forger = Ground(sealed.url, sealed.schema, tmp_path / "forger")
    forger.folder.mkdir()
    forger.seal()
    forger.close()
    with pytest.raises(NotTrusted):
        sealed.verify()
    sealed.query("DELETE FROM checkpoint")
    verdict = sealed.verify(saved, keys=[trusted])
    assert only(verdict) == (Kind.UNKNOWN, 1, SIZE)


def test_a_log_set_back_behind_a_saved_checkpoint_is_found(sealed: Ground) -> None:
    saved = sealed.seal()
    sealed.query("DELETE FROM events WHERE position > 600")
    sealed.query("UPDATE head SET position = 600")
    sealed.query("DELETE FROM checkpoint")
    retiled(sealed)
    verdict = sealed.verify(saved)
    assert only(verdict) == (Kind.MISSING, 601, 601)
    sealed.record(150)
    sealed.query("DELETE FROM tile")
    assert only(sealed.verify(saved)) == (Kind.UNKNOWN, 1, SIZE)


def test_an_empty_log_is_whole(ground: Ground) -> None:
    ground.key_file.write_bytes(b"k" * 32)
    assert ground.verify() == Verdict(0, 0)


def test_emptying_a_sealed_log_is_found(sealed: Ground) -> None:
    sealed.query("TRUNCATE events")
    sealed.query("UPDATE head SET position = 0")
    assert only(sealed.verify()) == (Kind.MISSING, 1, 1)
