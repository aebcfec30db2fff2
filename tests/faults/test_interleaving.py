"""Two processes on the same aggregates, with faults in between: no gap, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.commands import Answer, StillConflicting, StoreUnavailable
from infra.eventstore.committer import Committer
from infra.eventstore.groups import Answers
from infra.eventstore.lane import Lane
from infra.eventstore.records import OutcomeUnknown
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import Log, run

pytestmark = pytest.mark.database

FAULTS = ("dies before", "dies after", "session ended", "connection closed after")


@dataclass(frozen=True)
class Step:
    process: int
    aggregate: int
    leaves: bool
    """The client goes away once its command is under way."""
    fault: str | None
    """What befalls the next group of the process."""


steps_ = st.builds(
    Step,
    process=st.integers(0, 1),
    aggregate=st.integers(0, 2),
    leaves=st.sampled_from([False, False, False, True]),
    fault=st.sampled_from([None, None, None, None, *FAULTS]),
)
rounds_ = st.lists(st.lists(steps_, min_size=1, max_size=6), min_size=1, max_size=5)


class Faulty:
    """The commit of a group, with a fault when there is one to come."""

    def __init__(self, product: Product, log: Log) -> None:
        self._commit = product.committer._append_group
        self.log = log
        self.by_lane = 0
        self.fault: str | None = None

    def __call__(self, connection: Any, group: Any) -> Any:
        fault, self.fault = self.fault, None
        if fault == "dies before":
            raise RuntimeError(fault)
        if fault == "session ended":
            own = connection.info.backend_pid
            self.log.rows("SELECT pg_terminate_backend(%s)", [own])
        answers = self._commit(connection, group)
        if fault == "dies after":
            raise RuntimeError(fault)
        if fault == "connection closed after":
            connection.close()
        return answers


class FaultyLane(Lane):
    """A lane on which each group may meet the fault that its committer has to come."""

    faulty: ClassVar[dict[Committer, Faulty]] = {}

    def __init__(self, *args: Any, committed: Any, **more: Any) -> None:
        super().__init__(*args, committed=committed, **more)
        self._of = self.faulty[committed.__self__]
        self._meets: str | None = None

    def _take(self) -> None:
        super()._take()
        self._meets, self._of.fault = self._of.fault, None
        self._of.by_lane += 1
        if self._meets == "dies before":
            raise RuntimeError(self._meets)
        if self._meets == "session ended":
            own = self._connection.info.backend_pid
            self._of.log.rows("SELECT pg_terminate_backend(%s)", [own])

    def _done(self) -> Answers:
        answers = super()._done()
        if self._meets == "dies after":
            raise RuntimeError(self._meets)
        if self._meets == "connection closed after":
            with socket.socket(fileno=os.dup(self._connection.fileno())) as own:
                own.shutdown(socket.SHUT_RDWR)
        return answers


@settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rounds=rounds_)
def interleaved(
    rounds: list[list[Step]], products: list[Product], faulty: list[Faulty], log: Log
) -> None:
    run(_interleaved(rounds, products, faulty, log))


async def _interleaved(
    rounds: list[list[Step]], products: list[Product], faulty: list[Faulty], log: Log
) -> None:
    aggregates = [uuid4() for _ in range(3)]
    for aggregate in aggregates:
        await products[0].register(aggregate)
    before = log.check()
    asked: list[tuple[Product, UUID, str]] = []
    for steps in rounds:
        tasks = []
        for step in steps:
            order = (products[step.process], aggregates[step.aggregate], str(uuid4()))
            faulty[step.process].fault = step.fault or faulty[step.process].fault
            tasks.append(asyncio.create_task(_ordered(*order)))
            asked.append(order)
            if step.leaves:
                await asyncio.sleep(0)
                tasks[-1].cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(
                outcome,
                Answer
                | OutcomeUnknown
                | StoreUnavailable
                | StillConflicting
                | asyncio.CancelledError,
            ), outcome
    for each in faulty:
        each.fault = None
    answers = [await _ordered(*order) for order in asked]

    assert log.check() == before + len(asked)
    assert len({answer.position for answer in answers}) == len(asked)
    for product in products:
        for aggregate in aggregates:
            loaded = product.commands._repository.load(aggregate)
            assert loaded is not None
            orders = {order for _, id_, order in asked if id_ == aggregate}
            assert loaded.orders.keys() == orders
            assert loaded.version == 1 + len(orders)


async def _ordered(product: Product, customer: UUID, order: str) -> Answer:
    """With the order's id as the key."""
    return await product.order(customer, order, order)


@pytest.mark.parametrize("by_lane", [False, True], ids=["by the thread", "by lanes, too"])
def test_interleaved_commands_with_faults(
    new_product: Callable[..., Product], log: Log, monkeypatch: pytest.MonkeyPatch, by_lane: bool
) -> None:
    products = [new_product(), new_product()]
    faulty = [Faulty(product, log) for product in products]
    monkeypatch.setattr("infra.eventstore.committer.Lane", FaultyLane)
    monkeypatch.setattr("infra.eventstore.committer._LANE_REST", 0.0)
    for product, each in zip(products, faulty, strict=True):
        monkeypatch.setitem(FaultyLane.faulty, product.committer, each)
        monkeypatch.setattr(product.committer, "_append_group", each)
        if not by_lane:
            monkeypatch.setattr(product.committer, "_connect_lane", None)
    interleaved(products=products, faulty=faulty, log=log)
    assert log.check() > 100
    assert all((each.by_lane > 50) is by_lane for each in faulty)
