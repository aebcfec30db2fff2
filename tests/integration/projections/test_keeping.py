"""What `crm up` does with a read model that cannot simply be carried on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from infra.eventstore.doorbell import Doorbell
from infra.metrics import WorkerMetrics
from infra.migrations import migrate
from infra.postgres import Pool, connect
from projections.funnel import FunnelProjection
from projections.rebuild import Rebuild
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import START, Story, yuan
from workers.completing import CompletenessWatch
from workers.examining import read_models
from workers.projecting import Keeper, projecting
from workers.wiring import Databases, ReadSide

pytestmark = pytest.mark.database

PARTITIONS = 3


class Later(FunnelProjection):
    version = FunnelProjection.version + 1


def deals(count: int) -> Story:
    """Three events to a deal, its customer's included."""
    story = Story()
    for number in range(count):
        customer = story.customer(f"customer {number}")
        deal = story.deal(f"deal {number}", customer, yuan("10.00"))
        story.advance(deal, "bid", START + timedelta(1))
    return story


class Product:
    """A database of its own, with a log that can be put back."""

    def __init__(self, url: str, log_pool: Pool, pool: Pool) -> None:
        self.addresses = Databases(url, url)
        self.story = deals(40)
        self.log_pool = log_pool
        self.side = ReadSide(pool, log_pool, Doorbell())
        self.record()

    def record(self) -> None:
        write_log(self.log_pool, "log", self.story)

    def keeper(self) -> Keeper:
        return Keeper(FunnelProjection(), self.side, PARTITIONS)

    def rebuild(self, projection: FunnelProjection | None = None) -> None:
        chosen = projection or FunnelProjection()
        feed = self.side.feed(chosen)
        Rebuild(chosen, feed, self.side.pool, partitions=PARTITIONS).run()

    def doctor(self) -> list[tuple[bool, str]]:
        found = read_models(PARTITIONS, self.addresses)
        return [(one.good, one.text) for one in found if one.subject == "read model funnel"]


@pytest.fixture
def product(new_database: Callable[[], str]) -> Iterator[Product]:
    url = new_database()
    migrate(url)
    with (
        Pool(url, size=9, search_path=["log"], autocommit=True) as log_pool,
        Pool(url, size=9, role="crm_projector", search_path=["read"]) as pool,
    ):
        yield Product(url, log_pool, pool)


def kept_up(product: Product) -> Keeper:
    keeper = product.keeper()
    while keeper.step():
        pass
    return keeper


def test_the_last_step_for_now_says_so(product: Product) -> None:
    keeper = product.keeper()
    assert keeper.step() == 0
    assert set(keeper.positions().values()) == {120}
    keeper.close()


def test_a_restored_log_stops_the_read_model_until_it_is_rebuilt(product: Product) -> None:
    keeper = kept_up(product)
    assert keeper.refused is None
    assert product.doctor() == [(True, "up to date"), (True, "complete up to position 120")]
    del product.story.events[70:]
    product.record()
    keeper.ended.set()  # so that idling does not wait
    for _ in range(3):
        assert keeper.step() == 0
        keeper.idle()
    assert keeper.refused is not None
    assert "crm rebuild funnel" in keeper.refused
    [(good, text)] = product.doctor()
    assert not good
    assert text == keeper.refused
    product.rebuild()
    keeper.step()
    assert keeper.refused is None
    assert product.doctor() == [(True, "up to date"), (True, "complete up to position 70")]
    keeper.close()


def test_another_log_stops_the_read_model(product: Product) -> None:
    keeper = kept_up(product)
    product.story = deals(60)
    product.story.epoch = uuid4()
    product.record()
    assert keeper.step() == 0
    assert "another log" in str(keeper.refused)
    assert product.doctor() == [(False, str(keeper.refused))]
    keeper.close()


def test_a_later_program_ends_the_keeper_of_the_earlier_one(product: Product) -> None:
    keeper = kept_up(product)
    product.rebuild(Later())
    product.story.customer("one more")
    product.record()
    while not keeper.ended.is_set():
        assert keeper.step() == 0
        keeper.idle()
    [(good, text)] = product.doctor()
    assert not good
    assert f"{Later().id} is there" in text
    with product.side.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT projection FROM position")
        assert cursor.fetchall() == [(Later().id,)]
    keeper.close()


def test_a_read_model_of_an_earlier_program_is_rebuilt_by_itself(product: Product) -> None:
    kept_up(product).close()
    keeper = Keeper(Later(), product.side, PARTITIONS)
    assert keeper.step() == 1
    assert keeper.step() == 0
    assert keeper.refused is None
    keeper.close()


def test_the_threads_end_and_tell_whether_they_run(product: Product) -> None:
    stopped = threading.Event()
    with projecting(product.side, PARTITIONS, stopped) as running:
        assert running()
    assert stopped.is_set()
    assert not running()


def test_the_doctor_finds_what_lag_does_not_show(product: Product) -> None:
    kept_up(product).close()
    connection = connect(product.addresses.read, search_path=["read"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE applied SET events = events - 1 WHERE partition = 1")
    connection.close()
    [state, (good, text)] = product.doctor()
    assert state == (True, "up to date")
    assert not good
    assert "positions 1 to 120" in text
    assert "(partitions 1). Run: crm rebuild funnel" in text


def test_the_watch_counts_the_ranges_that_differ(product: Product) -> None:
    kept_up(product).close()
    metrics = WorkerMetrics()
    watch = CompletenessWatch([FunnelProjection()], product.side, PARTITIONS, metrics)

    def told() -> float | None:
        watch.step()
        labels = {"projection": "funnel"}
        return metrics.registry.get_sample_value("projection_incomplete_ranges", labels)

    assert told() == 0
    with product.side.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE applied SET digest = digest # 1 WHERE partition = 1")
    assert told() == 1
    product.rebuild()
    assert told() == 0


def test_the_doctor_on_an_empty_product(product: Product) -> None:
    product.story = Story()
    product.record()
    assert product.doctor() == [(True, "not filled yet; crm up does it")]
