"""Read models that are filled anew while their workers stay in the group."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.kafka import KafkaUnavailable
from projections.funnel import FunnelProjection
from tests.integration.consuming.conftest import PARTITIONS, Group, told
from tests.integration.projections.story import Story
from tests.integration.projections.test_projector import drain
from workers.membership import Membership

pytestmark = [
    pytest.mark.database,
    # A client that is closed while it connects leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]


class Later(FunnelProjection):
    version = FunnelProjection.version + 1


def test_kafka_going_away_while_a_read_model_is_rebuilt_does_not_have_it_done_again(
    group_of: Callable[[Story], Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(31, 60))
    drain(group.models.projector(FunnelProjection(), group.story, partitions=PARTITIONS))
    worker = group.worker(projection=Later())
    worker._keep_alive = 0.0
    group.until(lambda: worker._outdated is not None, worker)

    def away(_: Membership) -> None:
        monkeypatch.undo()
        raise KafkaUnavailable("away")

    monkeypatch.setattr(Membership, "stay", away)
    group.until(lambda: group.rebuilds > 0, worker)
    group.relay.send_all()
    group.until(lambda: len(worker.positions) == PARTITIONS, worker)
    assert group.rebuilds == 1
