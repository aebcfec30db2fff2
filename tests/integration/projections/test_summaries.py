"""Sums from summaries are those over the rows, whatever is summed up and whatever is not yet."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.funnel.deals import DealFold
from projections.projection import PeriodTable, Projection, Summary, Summed
from projections.projector import Projector
from projections.reading import Moment, fetch, truth
from projections.summaries import Summarizer, hold, net
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

PARTITIONS = 3
SUMMARY = Summary(
    dimensions=(
        Summed("stage", "text"),
        Summed("status", "text"),
        Summed("won_month", "date", "date_trunc('month', signed_on)::date"),
    ),
    measures=(
        Summed("amount", "numeric"),
        Summed("squares", "numeric", "amount * amount"),
        Summed("brought", "numeric", "won_amount"),
    ),
    condition="status <> 'lost'",
)


class _Deals(DealFold):
    periods = (
        replace(DealFold.periods[0], summary=SUMMARY),
        replace(
            DealFold.periods[1],
            summary=Summary((), (Summed("ended", "int", "(ended IS NOT NULL)::int"),)),
        ),
    )


class _Summed(Projection):
    name = "summed"
    version = 1
    folds = (_Deals(),)
    views = ()


DEALS, VISITS = _Deals.periods
PROJECTION = _Summed()


def summarizer(models: Models, positions: int, at_once: int = 3) -> Summarizer:
    return Summarizer(
        PROJECTION, models.pool, schema=models.read, positions=positions, at_once=at_once
    )


def sum_up(models: Models, positions: int) -> int:
    one, blocks = summarizer(models, positions), 0
    while done := one.step():
        blocks += done
    return blocks


def direct(connection: Any, moment: Moment, table: PeriodTable, where: str) -> list[Any]:
    summary = table.summary
    assert summary is not None
    places = ", ".join(str(place) for place in range(1, 1 + len(summary.dimensions)))
    columns = "".join(f"{d.sql} AS {d.name}, " for d in summary.dimensions)
    sums = ", ".join(f"coalesce(sum({m.sql}), 0) AS {m.name}" for m in summary.measures)
    rows = fetch(
        connection,
        f"SELECT * FROM (SELECT {columns} count(*) AS rows, {sums} FROM {table.name}"
        f" WHERE {truth(moment)} AND ({summary.condition})"
        f" {f'GROUP BY {places}' if places else ''}) AS one WHERE ({where}) AND rows > 0",
        moment.parameters(),
    )
    return sorted(rows, key=str)


def by_summary(connection: Any, moment: Moment, table: PeriodTable, where: str) -> list[Any]:
    query = net(connection, moment, _Deals, table, where)
    rows = fetch(connection, f"SELECT * FROM ({query}) AS net", moment.parameters())
    return sorted(rows, key=str)


def moments(story: Story, random: Random, many: int) -> list[Moment]:
    """At events, at midnight, between; as known at any position, also none and one to come."""
    end = max(event.occurred_at for event in story.events)
    found = [Moment(end, latest=True), Moment(START - timedelta(days=400)), Moment(end, 0)]
    for _ in range(many):
        event = random.choice(story.events)  # what it brought, at its time and as soon as known
        found.append(Moment(event.occurred_at, event.position + random.choice([-1, 0, 0, 1])))
        as_of = random.choice(
            [
                START + (end - START) * random.random(),
                random.choice(story.events).occurred_at,
                random.choice(story.events).occurred_at - timedelta(microseconds=1),
                (START + timedelta(days=random.randint(0, 900))).replace(hour=0, day=1),
            ]
        )
        known_at = random.choice([None, random.randint(0, len(story.events) + 40)])
        found.append(Moment(as_of, known_at))
    return found


def check(models: Models, story: Story, random: Random, many: int = 12) -> None:
    for moment in moments(story, random, many):
        for table, where in (
            (DEALS, "true"),
            (DEALS, "status = 'open' OR stage = 'bid'"),
            (VISITS, "true"),
        ):
            found = models.ask(by_summary, moment, table, where)
            assert found == models.ask(direct, moment, table, where), moment


def projectors(models: Models, story: Story) -> list[Projector]:
    return [
        models.projector(
            PROJECTION, story, partitions=PARTITIONS, owned=[number], batch=10, bi_schema=None
        )
        for number in range(PARTITIONS)
    ]


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 10**6),
    positions=st.sampled_from([1, 2, 5, 16, 40]),
    late=st.sampled_from([0.0, 0.4, 0.9]),
)
def test_sums_are_those_over_the_rows(
    models: Models, seed: int, positions: int, late: float
) -> None:
    models.run("DROP TABLE IF EXISTS deal_fact, deal_period, visit_period CASCADE")
    models.run("DROP TABLE IF EXISTS deal_period_sum, visit_period_sum CASCADE")
    for shared in ("position", "origin", "applied", "parked"):
        models.run(f"DELETE FROM {shared}")
    random = Random(seed)
    story = random_story(seed, 270, late=late)
    owners = projectors(models, story)
    for owner in owners:
        owner.prepare()
    one = summarizer(models, positions, at_once=random.randint(1, 60))
    behind = list(owners)
    while behind:  # each at its own pace
        owner = random.choice(behind)
        if not owner.step(random.randint(1, 60)):
            behind.remove(owner)
        if random.random() < 0.5:
            one.step()
        if random.random() < 0.2:
            check(models, story, random, many=2)
    check(models, story, random, many=5)
    while one.step():
        pass
    check(models, story, random)


def projected(models: Models, story: Story, **options: Any) -> Projector:
    projector = models.projector(
        PROJECTION, story, **{"partitions": PARTITIONS, "batch": 50, "bi_schema": None, **options}
    )
    while projector.step():
        pass
    return projector


def cells(models: Models) -> list[Any]:
    """All sums, whatever was summed up at once."""
    columns = "level, block, span, since, stage, status, won_month, rows, amount, squares, brought"
    return models.rows("deal_period_sum", columns)


def through(models: Models) -> dict[str, int]:
    return dict(models.run("SELECT table_name, through FROM summarised"))


def test_only_what_all_partitions_have_passed_is_summed_up(models: Models) -> None:
    story = random_story(5, 100)
    first, *others = projectors(models, story)
    first.step(90)
    for other in others:
        other.step(47)
    assert sum_up(models, 10) == 2 * 4
    assert through(models) == {"deal_period": 40, "visit_period": 40}
    check(models, story, Random(5))


def test_reads_take_sums_where_there_are(models: Models) -> None:
    story = random_story(6, 300)
    projected(models, story)
    moment = Moment(max(e.occurred_at for e in story.events), 250)
    assert DEALS.sums not in models.ask(net, moment, _Deals, DEALS)
    sum_up(models, 2)
    assert DEALS.sums in models.ask(net, moment, _Deals, DEALS)
    models.run("UPDATE deal_period SET amount = amount + 1000 WHERE known_from < 200")
    good = models.ask(direct, moment, DEALS, "true")
    assert models.ask(by_summary, moment, DEALS, "true") != good


def test_sums_do_not_depend_on_how_many_blocks_are_done_at_once(models: Models) -> None:
    story = random_story(7, 300)
    projector = models.projector(PROJECTION, story, partitions=PARTITIONS, batch=37, bi_schema=None)
    while projector.step():
        while summarizer(models, 3, at_once=1).step():
            pass
    found = cells(models)
    assert {row[0][:3] for row in found} == {"(0,", "(1,"}
    models.run("DELETE FROM summarised")
    assert summarizer(models, 3, at_once=1000).step() == 2 * 100
    assert cells(models) == found


def test_blocks_of_another_size_are_summed_up_anew(models: Models) -> None:
    story = random_story(8, 200)
    projected(models, story)
    sum_up(models, 10)
    assert sum_up(models, 16) == 2 * 12
    check(models, story, Random(8))
    assert sum_up(models, 10) == 2 * 20
    check(models, story, Random(8))


def test_one_process_at_a_time_sums_up(models: Models) -> None:
    story = random_story(9, 100)
    projected(models, story)
    with models.pool.connection() as connection, connection.cursor() as cursor:
        hold(cursor, PROJECTION, models.read)
        assert summarizer(models, 10).step() == 0
    assert summarizer(models, 10).step() > 0


def test_there_is_nothing_to_sum_up_without_a_read_model(models: Models) -> None:
    assert summarizer(models, 10).step() == 0


def test_a_key_tried_again_changes_what_was_summed_up(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = random_story(10, 300, customers=3)
    deals = [e for e in story.events if e.topic.startswith("crm.opportunity.")]
    late = next(e for e in deals if e.position > 150 and not e.topic.endswith("opened"))
    step = DealFold.step

    def fussy(self: DealFold, state: Any, fact: Any) -> Any:
        if fact[1] == late.position:
            raise ZeroDivisionError("cannot take it")
        return step(self, state, fact)

    with monkeypatch.context() as patched:
        patched.setattr(DealFold, "step", fussy)
        projector = projected(models, story)
        sum_up(models, 4)
        check(models, story, Random(10))
        summed = through(models)["deal_period"]
        assert summed == 300
    assert projector.retry(late.stream_id)
    back = through(models)["deal_period"]
    assert late.position - 4 <= back < late.position
    check(models, story, Random(10))
    sum_up(models, 4)
    check(models, story, Random(10))
    found = cells(models)
    models.run("DELETE FROM summarised")
    sum_up(models, 4)
    assert cells(models) == found


@pytest.mark.parametrize("partitions", [PARTITIONS, 5])
def test_a_rebuild_brings_its_own_sums(models: Models, partitions: int) -> None:
    story = random_story(11, 300)
    projected(models, story)
    sum_up(models, 4)
    found = cells(models)
    models.run("UPDATE deal_period_sum SET rows = rows + 1")  # whatever was wrong
    rebuilt = models.rebuild(
        PROJECTION, story, partitions=partitions, block=4, bi_schema=None
    ).run()
    assert [table.table for table in rebuilt.compared if not table.same] == ["deal_period_sum"]
    assert through(models) == {"deal_period": 300, "visit_period": 300}
    assert cells(models) == found
    check(models, story, Random(11))
    again = models.rebuild(PROJECTION, Story(), partitions=partitions, bi_schema=None)
    again.run()
    assert through(models) == {}


def test_answers_stay_right_while_sums_are_made_and_tables_are_swapped(models: Models) -> None:
    story = random_story(13, 300)
    projected(models, story)
    moment = Moment(max(e.occurred_at for e in story.events), 290)
    expected = models.ask(direct, moment, DEALS, "true")
    done = threading.Event()
    seen: list[bool] = []

    def read() -> None:
        while not done.is_set():
            with models.pool.connection() as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    cursor.execute(f"SET LOCAL search_path TO {models.read}")
                seen.append(by_summary(connection, moment, DEALS, "true") == expected)

    def keep() -> None:
        one = summarizer(models, 4, at_once=2)
        while not done.is_set():
            one.step()

    threads = [threading.Thread(target=task) for task in (read, read, keep)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            rebuild = models.rebuild(
                PROJECTION, story, partitions=PARTITIONS, block=4, bi_schema=None
            )
            assert rebuild.run().same
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 10
    assert all(seen)


def test_readers_may_read_the_sums(models: Models) -> None:
    story = random_story(12, 60)
    projected(models, story)
    sum_up(models, 4)
    [(may,)] = models.run(
        "SELECT bool_and(has_table_privilege('crm_reader', name::regclass, 'SELECT')"
        " AND NOT has_table_privilege('crm_reader', name::regclass, 'UPDATE'))"
        " FROM unnest(ARRAY['deal_period_sum', 'visit_period_sum', 'summarised']) AS name"
    )
    assert may
