"""One relay publishes at a time; who is late only repeats what the other sends."""

from __future__ import annotations

from typing import Any

import pytest

from infra.eventstore.outbox import LeaseLost
from tests.integration.relay.ground import Ground
from workers.relay import STUCK, lease_holder


def test_a_standby_does_not_publish(ground: Ground):
    ground.append(0, 1, 2)
    first, standby = ground.relay(), ground.relay()
    ground.carry(first)
    ground.append(0)

    assert not standby.step()
    assert ground.events() == {0: [1], 1: [2], 2: [3]}
    ground.carry(first)
    assert ground.events() == {0: [1, 4], 1: [2], 2: [3]}


def test_a_standby_takes_over_when_the_holder_gives_no_sign(ground: Ground):
    ground.append(0, 1)
    ground.carry(ground.relay())
    ground.append(1, 2)
    ground.holder_died()
    ground.carry(ground.relay())

    assert ground.events() == {0: [1], 1: [2, 3], 2: [4]}
    assert ground.applied() == ground.in_log()


def test_a_standby_takes_over_at_once_when_the_holder_ends_in_good_order(ground: Ground):
    ground.append(0)
    first, standby = ground.relay(), ground.relay()
    ground.carry(first)
    ground.append(1)
    first.step()
    first.close()
    ground.carry(standby)

    assert ground.events() == {0: [1], 1: [2], 2: []}


def test_a_late_holder_saves_nothing_and_only_sends_duplicates(ground: Ground):
    ground.append(0, 1)
    late, other = ground.relay(), ground.relay()
    ground.carry(late)
    ground.append(0, 0, 2)
    ground.holder_died()
    ground.carry(other)
    saved = ground.sql("SELECT holder, epoch, position, previous, offsets FROM relay")

    late.step()  # it wakes up, and sends from where it was before it can notice
    late.idle()
    ground.clock.now += 1
    assert not late.step()
    assert ground.sql("SELECT holder, epoch, position, previous, offsets FROM relay") == saved
    assert sum(map(len, ground.events().values())) > ground.end()

    ground.append(1)
    ground.carry(other)
    assert ground.applied() == ground.in_log()
    seen: dict[int, tuple[str, int]] = {}
    for records in ground.records().values():
        for one in records:
            if not one.watermark:
                assert seen.setdefault(one.position, (one.id, one.previous)) == (
                    one.id,
                    one.previous,
                )


def test_a_late_holder_stands_by_and_can_take_over_again(ground: Ground):
    ground.append(0)
    late, other = ground.relay(), ground.relay()
    ground.carry(late)
    ground.holder_died()
    ground.carry(other)
    late.keep()
    assert not late.step()

    ground.append(1)
    ground.holder_died()
    ground.carry(late)
    assert ground.applied() == ground.in_log()


def test_the_lease_is_renewed_while_nothing_else_happens(ground: Ground):
    relay = ground.relay()
    relay.step()
    ground.sql("UPDATE relay SET expires_at = clock_timestamp() + interval '1 second'")
    relay.keep()

    left = "SELECT expires_at > clock_timestamp() + interval '50 seconds' FROM relay"
    assert ground.sql(left) == [(True,)]


def test_a_relay_that_hangs_lets_the_lease_go(ground: Ground):
    relay = ground.relay()
    relay.step()
    ground.clock.now += STUCK
    before = ground.sql("SELECT expires_at FROM relay")
    relay.keep()

    assert ground.sql("SELECT expires_at FROM relay") == before


def test_only_the_holder_saves(ground: Ground):
    first, second = ground.outbox("first"), ground.outbox("second")
    assert first.take()
    assert not second.take()
    with pytest.raises(LeaseLost):
        second.renew()
    second.seize()
    with pytest.raises(LeaseLost):
        first.renew()
    assert first.epoch is None
    first.release()
    assert not first.take()
    second.release()
    assert first.take()
    assert first.epoch == 3


def test_a_renewal_under_way_while_the_lease_is_given_up_comes_to_nothing(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    first, second = ground.outbox("first"), ground.outbox("second")
    assert first.take()
    query = first._rows

    def released_meanwhile(*of: Any) -> Any:
        monkeypatch.setattr(first, "_rows", query)
        first.release()
        return query(*of)

    monkeypatch.setattr(first, "_rows", released_meanwhile)
    with pytest.raises(LeaseLost):
        first.renew()
    assert second.take()


def test_no_two_holders_have_the_same_name(ground: Ground):
    """Also of one host and process number, at the same moment."""
    assert len({lease_holder(ground.settings) for _ in range(50)}) == 50
