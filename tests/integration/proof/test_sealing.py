"""The sealer: what it signs, and what it refuses to sign."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from psycopg2 import errors

from infra.proof.leaves import leaf
from infra.proof.notes import parse
from infra.proof.sealing import Sealer, SealRefused, begin_new_log
from infra.proof.stored import Stored
from infra.proof.tree import leaf_hash, root_of, verify_consistency, verify_inclusion
from tests.integration.proof.ground import Ground

pytestmark = pytest.mark.database

Fill = Callable[[int], Ground]


def test_what_is_signed_is_the_root_of_all_leaves(filled: Fill) -> None:
    ground = filled(700)
    note = ground.seal()
    hashes = b"".join(leaf_hash(leaf(row)) for row in ground.rows())
    assert note.checkpoint.size == 700
    assert note.checkpoint.root == root_of(hashes)
    assert note.checkpoint.origin == ground.key.name
    assert note.signed_by([ground.key.verifying]) == [ground.key.verifying]


def test_an_empty_log_is_not_signed(ground: Ground) -> None:
    assert ground.sealer().seal().note == ""
    assert ground.query("SELECT count(*) FROM checkpoint") == [(0,)]


def test_it_goes_on_in_steps_and_every_step_extends_the_former(filled: Fill) -> None:
    ground = filled(300)
    sealer = ground.sealer(step=77)
    while sealer.seal().lag:
        pass
    ground.record(420)
    while sealer.seal().lag:
        pass
    assert not sealer.seal().added
    stored = Stored(ground.owner)
    notes = [parse(one.note).checkpoint for one in stored.checkpoints()]
    assert [note.size for note in notes] == [77, 154, 231, 300, 377, 454, 531, 608, 685, 720]
    tree = stored.tree
    for former, later in pairwise(notes):
        path = tree.consistency(former.size, later.size)
        verify_consistency(former.size, later.size, former.root, later.root, path)
    row = ground.rows()[499]
    path = tree.inclusion(499, 720)
    verify_inclusion(leaf_hash(leaf(row)), 499, 720, path, notes[-1].root)


def test_the_tiles_take_32_bytes_an_event(filled: Fill) -> None:
    ground = filled(2560)
    ground.seal()
    ((total,),) = ground.query("SELECT sum(length(hashes)) FROM tile")
    assert total == 32 * (2560 + 10)


def test_several_sealers_at_once_do_no_harm(filled: Fill) -> None:
    ground = filled(600)
    sealers = [ground.sealer(step=50) for _ in range(4)]

    def seal(sealer: Sealer) -> int:
        added = 0
        while (sealed := sealer.seal()).lag:
            added += sealed.added
        return added + sealed.added

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(seal, sealers)) == 600
    assert ground.verify().faults == []
    ((sizes,),) = ground.query("SELECT array_agg(size ORDER BY number) FROM checkpoint")
    assert sizes == list(range(50, 601, 50))


def test_another_sealer_that_holds_the_lock_is_left_at_it(filled: Fill) -> None:
    ground = filled(5)
    with ground.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('crm seal ' || current_schema(), 0))"
        )
        sealed = ground.sealer().seal()
        assert (sealed.elsewhere, sealed.lag) == (True, 5)
        with pytest.raises(SealRefused, match="at work"):
            ground.sealer().rotate()


def refused(ground: Ground, **options: Path) -> str:
    before = ground.query("SELECT number, note FROM checkpoint ORDER BY number")
    with pytest.raises(SealRefused) as refusal:
        ground.sealer(**options).seal()  # type: ignore[arg-type]
    assert ground.query("SELECT number, note FROM checkpoint ORDER BY number") == before
    return str(refusal.value)


def test_a_changed_tree_is_not_signed(filled: Fill) -> None:
    ground = filled(300)
    ground.seal()
    ground.record(10)
    ground.query(
        "UPDATE tile SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)"
        " WHERE level = 0 AND index = 1"
    )
    assert "root that was signed at size 300" in refused(ground)
    ground.query("DELETE FROM tile WHERE level = 1")
    assert "tree was changed" in refused(ground)


def test_a_log_that_lost_events_is_not_signed(filled: Fill) -> None:
    ground = filled(300)
    ground.seal()
    ground.query("DELETE FROM events WHERE position > 290")
    ground.query("UPDATE head SET position = 290")
    assert "events are lost" in refused(ground)


def test_a_gap_is_not_signed(filled: Fill) -> None:
    ground = filled(300)
    ground.query("DELETE FROM events WHERE position = 250")
    assert "after position 249 comes 251" in refused(ground)
    ground.query("DELETE FROM events WHERE position > 249")
    assert "events are missing" in refused(ground)


def test_a_forged_checkpoint_is_not_built_upon(filled: Fill) -> None:
    ground = filled(20)
    note = ground.seal()
    ground.record(1)
    ground.query("UPDATE checkpoint SET note = replace(note, E'\\n20\\n', E'\\n21\\n'), size = 21")
    assert "was changed" in refused(ground)
    ground.query("UPDATE checkpoint SET note = %s", [note.text])
    assert "was changed" in refused(ground)


def test_a_database_set_back_behind_a_published_checkpoint_is_not_signed(filled: Fill) -> None:
    ground = filled(20)
    ground.seal()
    ground.record(5)
    ground.seal()
    ground.query("DELETE FROM checkpoint WHERE size = 25")
    ground.query("DELETE FROM events WHERE position > 20")
    ground.query("UPDATE tile SET hashes = substr(hashes, 1, 640)")
    ground.query("UPDATE head SET position = 20")
    assert "size 25 was published" in refused(ground)
    ground.record(9)  # it goes on otherwise
    assert "size 25 was published" in refused(ground)


def test_a_log_that_lost_events_for_good_goes_on_under_another_name(filled: Fill) -> None:
    ground = filled(20)
    former = ground.seal()
    ground.query("DELETE FROM events WHERE position > 15")
    ground.query("UPDATE head SET position = 15")
    refused(ground)
    begin_new_log(ground.owner)
    ground.published.retire()
    note = ground.seal()
    assert note.checkpoint.size == 15
    assert note.checkpoint.origin != former.checkpoint.origin
    assert ground.verify().faults == []
    assert ground.query("SELECT count(*) FROM checkpoint") == [(2,)]


def test_a_log_under_another_name_is_not_signed_unless_that_was_meant(filled: Fill) -> None:
    ground = filled(20)
    ground.seal()
    ground.query("UPDATE seal SET log_id = gen_random_uuid()")
    assert "move the file aside" in refused(ground)


def test_without_its_key_nothing_is_signed(filled: Fill, tmp_path: Path) -> None:
    ground = filled(20)
    ground.seal()
    ground.record(1)
    other = tmp_path / "other.key"
    assert "is not there" in refused(ground, key_file=other)
    assert not other.exists()
    other.write_bytes(b"x" * 32)
    assert "is not the key that signs" in refused(ground, key_file=other)
    other.write_bytes(b"x" * 31)
    assert "must hold 32 bytes" in refused(ground, key_file=other)


def test_a_key_hands_over_to_the_next(filled: Fill) -> None:
    ground = filled(20)
    ground.seal()
    old = ground.key.verifying
    new, sealed = ground.sealer().rotate()
    assert ground.key.verifying == new != old
    assert parse(sealed.note).signed_by([old, new]) == [old, new]
    ground.published.publish(sealed.note)
    ground.record(3)
    note = ground.seal()
    assert note.signed_by([old, new]) == [new]
    for key in (old, new):
        assert ground.verify(keys=[key]).faults == []
    assert Stored(ground.owner).vkeys() == [str(old), str(new)]


@pytest.mark.parametrize("committed", [True, False])
def test_a_rotation_that_was_cut_short_is_ended_or_forgotten(
    filled: Fill, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    ground = filled(20)
    ground.seal()
    old = ground.key.verifying

    def cut(*_: object) -> None:
        raise OSError("cut short")

    where = "infra.proof.sealing._take_over" if committed else "infra.proof.sealing._add_checkpoint"
    with monkeypatch.context() as patched, pytest.raises(OSError, match="cut short"):
        patched.setattr(where, cut)
        ground.sealer().rotate()
    ground.record(1)
    note = ground.seal()
    assert (note.signed_by([old, ground.key.verifying]) == [old]) != committed
    new, _ = ground.sealer().rotate()
    assert ground.key.verifying == new
    ground.record(1)
    ground.seal()
    assert ground.verify(keys=[old]).faults == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'x'",
        "DELETE FROM events",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE head SET position = 1",
        "DELETE FROM tile",
        "UPDATE checkpoint SET size = 1",
        "DELETE FROM checkpoint",
        "UPDATE seal SET log_id = gen_random_uuid()",
        "DELETE FROM seal_key",
        "SELECT * FROM receipts",
        "SELECT * FROM snapshots",
    ],
)
def test_the_sealers_role_may_do_no_more_than_it_needs(ground: Ground, statement: str) -> None:
    connection = ground.connection("crm_sealer")
    with connection.cursor() as cursor, pytest.raises(errors.InsufficientPrivilege):
        cursor.execute(statement)
    connection.close()
