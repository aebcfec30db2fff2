"""What a read waits for and reports, and read models that are not of the present log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.errors import NotOfThisLog, NotYetRead, Unavailable
from api.reads import Answered, Question, Reads
from infra.eventstore.feed import partition_of
from infra.postgres import Pool
from projections import funnel
from projections.funnel import FunnelProjection
from projections.reading import Connection, Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.delivering import of_partition
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import START, Story, named, yuan

pytestmark = pytest.mark.database

PARTITIONS = 4


class Asked:
    """Reads of a story's funnel, whose partitions are delivered one by one."""

    def __init__(self, models: Models, log_pool: Pool, log_schema: str, read_pool: Pool) -> None:
        self.story = Story()
        self.models = models
        self.log_pool = log_pool
        self.log_schema = log_schema
        self.read_pool = read_pool
        self.projector = models.projector(FunnelProjection(), self.story, partitions=PARTITIONS)
        self.projector.own(range(PARTITIONS))

    def record(self) -> None:
        write_log(self.log_pool, self.log_schema, self.story)

    def deliver(self, *partitions: int) -> None:
        for partition in partitions:
            events = of_partition(self.story, partition, PARTITIONS)
            self.projector.apply(events, {partition: len(self.story.events)})

    def ask(
        self, *questions: Callable[[Reads], Any], wait_seconds: float = 0.05
    ) -> list[Any | Exception]:
        """The answers, or the errors, of questions asked at the same time."""

        async def ask() -> list[Any]:
            reads = Reads(
                self.read_pool,
                self.log_pool,
                {"funnel": FunnelProjection().id},
                lambda: START + timedelta(days=1000),
                wait_seconds=wait_seconds,
                threads=4,
            )
            try:
                return await asyncio.gather(
                    *(question(reads) for question in questions), return_exceptions=True
                )
            finally:
                reads.close()

        return asyncio.run(ask())


@pytest.fixture
def asked(models: Models, database_url: str, fresh_schemas: dict[str, str]) -> Iterator[Asked]:
    log, read = fresh_schemas["log"], fresh_schemas["read"]
    with (
        Pool(database_url, size=3, search_path=[log]) as log_pool,
        Pool(database_url, size=4, role="crm_reader", search_path=[read]) as read_pool,
    ):
        yield Asked(models, log_pool, log, read_pool)


def deal(id_: UUID, min_position: int = 0) -> Callable[[Reads], Any]:
    async def ask(reads: Reads) -> Answered[Any]:
        def query(connection: Connection, moment: Moment) -> Any:
            return funnel.deal(connection, id_, moment)

        partition_key = await reads.partition_key(id_)
        question = Question(min_position=min_position)
        return await reads.ask(["funnel"], question, query, key=id_, partition_key=partition_key)

    return ask


def deals(min_position: int = 0) -> Callable[[Reads], Any]:
    async def ask(reads: Reads) -> Answered[Any]:
        def query(connection: Connection, moment: Moment) -> Any:
            return funnel.deals(connection, moment, limit=100)

        return await reads.ask(["funnel"], Question(min_position=min_position), query)

    return ask


def customer_in(partition: int) -> str:
    """A name whose customer lies in this partition."""
    names = (f"customer {number}" for number in range(1000))
    return next(name for name in names if partition_of(named(name), PARTITIONS) == partition)


def test_one_key_needs_and_tells_its_own_partition_alone(asked: Asked) -> None:
    customer = asked.story.customer(customer_in(2))
    made = asked.story.deal("deal", customer, yuan("10.00"))
    end = len(asked.story.events)
    asked.record()
    asked.deliver(2)
    one, listed, elsewhere = asked.ask(deal(made, end), deals(end), deal(uuid4(), end))
    assert one.value.name == "deal"
    assert one.position == end
    # A list needs all partitions, and so does what the log does not know.
    assert isinstance(listed, NotYetRead)
    assert isinstance(elsewhere, NotYetRead)
    asked.deliver(0, 1, 3)
    one, listed, elsewhere = asked.ask(deal(made, end), deals(end), deal(uuid4(), end))
    assert listed.position == one.position == end
    assert elsewhere.value is None


def test_a_key_whose_partition_lags_is_waited_for_though_others_are_ahead(asked: Asked) -> None:
    customer = asked.story.customer(customer_in(1))
    made = asked.story.deal("deal", customer, yuan("10.00"))
    asked.record()
    asked.deliver(0, 2, 3)
    (missing,) = asked.ask(deal(made, 2))
    assert isinstance(missing, NotYetRead)
    assert "0 is reflected" in str(missing)
    asked.deliver(1)
    (one,) = asked.ask(deal(made, 2))
    assert one.value.name == "deal"


def test_one_poll_wakes_all_who_wait(asked: Asked) -> None:
    customer = asked.story.customer(customer_in(1))
    made = asked.story.deal("deal", customer, yuan("10.00"))
    asked.record()
    polls = 0

    async def deliver(reads: Reads) -> None:
        nonlocal polls
        positions = reads._watch._positions

        def counted() -> Any:
            nonlocal polls
            polls += 1
            if polls == 2:
                asked.deliver(1)
            if polls == 4:
                asked.deliver(0, 2, 3)
            return positions()

        reads._watch._positions = counted

    waiting = [deal(made, 2) for _ in range(20)] + [deals(2) for _ in range(20)]
    _, *answers = asked.ask(deliver, *waiting, wait_seconds=30.0)
    assert all(isinstance(answer, Answered) for answer in answers), answers
    assert polls <= 6


def test_the_position_told_without_a_wish_is_that_of_the_key_s_partition(asked: Asked) -> None:
    customer = asked.story.customer(customer_in(3))
    made = asked.story.deal("deal", customer, yuan("10.00"))
    asked.record()
    asked.deliver(3)
    one, listed = asked.ask(deal(made), deals())
    assert (one.position, listed.position) == (2, 0)


def test_a_read_model_ahead_of_the_log_is_not_read(asked: Asked) -> None:
    for number in range(10):
        asked.story.customer(f"customer {number}")
    asked.record()
    asked.deliver(*range(PARTITIONS))
    (fine,) = asked.ask(deals(10))
    assert fine.position == 10
    del asked.story.events[5:]
    asked.record()
    refused, state = asked.ask(deals(), lambda reads: reads.state())
    assert isinstance(refused, NotOfThisLog)
    assert "crm rebuild funnel" in state.strangers["funnel"]
    asked.models.rebuild(FunnelProjection(), asked.story, partitions=PARTITIONS).run()
    again, state = asked.ask(deals(), lambda reads: reads.state())
    assert again.position == 5
    assert state.strangers == {}


def test_a_read_model_of_another_log_is_not_read(asked: Asked) -> None:
    asked.story.customer("acme")
    asked.record()
    asked.deliver(*range(PARTITIONS))
    asked.story.epoch = uuid4()
    asked.record()
    (refused,) = asked.ask(deals())
    assert isinstance(refused, NotOfThisLog)


def test_a_read_model_of_another_version_of_the_program_is_not_read(asked: Asked) -> None:
    asked.record()
    asked.deliver(*range(PARTITIONS))
    later = f"funnel/{FunnelProjection.version + 1}"
    asked.models.run("UPDATE position SET projection = %s", later)
    (refused,) = asked.ask(deals())
    assert isinstance(refused, Unavailable)
