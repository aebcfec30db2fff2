"""`verify` says whether the live set is what the log says, and touches nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from infra.postgres import quote
from projections.funnel import FunnelProjection
from projections.projector import LogBehind, NewerProgram
from projections.rebuild import NothingToCompare, comparing, shadow_schema
from projections.summaries import Summarizer
from tests.integration.projections.conftest import Models
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_former import Later, kept, rows, shared
from tests.integration.projections.test_projector import drain
from tests.integration.projections.test_rebuild import shadows

pytestmark = pytest.mark.database

FUNNEL = FunnelProjection()


def state(models: Models) -> Any:
    return rows(models), shared(models), models.rows("origin"), kept(models), shadows(models)


def test_a_good_set_is_the_same_and_stays_untouched(models: Models) -> None:
    story = random_story(61, 200)
    drain(models.projector(FUNNEL, story, batch=50))
    summarizer = Summarizer(FUNNEL, models.pool, schema=models.read, positions=8)
    summarizer.step()
    before = state(models)
    result = models.rebuild(FUNNEL, story, block=8).verify()
    assert result.same
    assert (result.position, result.at) == (200, 200)
    assert {table.table for table in result.compared} == {*FUNNEL.tables(), *FUNNEL.sums()}
    filled = {table.table for table in result.compared if table.live_rows > 0}
    assert filled >= {"deal_fact", "deal_period", "visit_period", "deal_period_sum"}
    assert state(models) == before


@pytest.mark.parametrize(
    ("drift", "table"),
    [
        ("UPDATE deal_period SET amount = amount + 1 WHERE known_to > 9000000", "deal_period"),
        ("UPDATE deal_fact SET actor = 'x' WHERE position = (SELECT min(position) FROM deal_fact)",
         "deal_fact"),
        ("DELETE FROM visit_period WHERE visit = 1", "visit_period"),
        ("UPDATE deal_period_sum SET rows = rows + 1 WHERE level = 0 AND block = 3",
         "deal_period_sum"),
    ],
)  # fmt: skip
def test_a_drift_is_found_shown_and_left(models: Models, drift: str, table: str) -> None:
    story = random_story(62, 200)
    drain(models.projector(FUNNEL, story, batch=50))
    Summarizer(FUNNEL, models.pool, schema=models.read, positions=8).step()
    models.run(drift)
    before = state(models)
    result = models.rebuild(FUNNEL, story, block=8).verify()
    assert [one.table for one in result.compared if not one.same] == [table]
    (found,) = (one for one in result.compared if one.table == table)
    assert found.differing
    assert {line.split(":")[0] for line in found.differing} <= {"live", "rebuilt"}
    assert state(models) == before


def test_the_live_projector_goes_on_while_both_are_compared(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = random_story(63, 260)
    told, story.events = story.events, story.events[:200]
    projector = models.projector(FUNNEL, story, batch=50)
    drain(projector)
    moved = threading.Event()

    def meanwhile() -> None:
        story.events = told
        drain(projector)
        moved.set()

    summed = comparing._summed

    def in_the_middle(*asked: Any) -> Any:
        """A statement of the comparison runs, in a transaction of its own, as long as the
        projector needs for all there is."""
        with models.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {quote(models.read)}.deal_period")
            if not moved.is_set():  # one at a time compares here
                thread = threading.Thread(target=meanwhile)
                thread.start()
                assert moved.wait(30)
                thread.join()
        return summed(*asked)

    monkeypatch.setattr(comparing, "_summed", in_the_middle)
    result = models.rebuild(FUNNEL, story).verify()
    assert result.same
    assert result.at == 200
    assert models.run("SELECT DISTINCT position FROM position") == [(len(told),)]


def test_a_live_set_that_lags_is_compared_where_it_is(models: Models) -> None:
    story = random_story(64, 200)
    models.projector(FUNNEL, story, batch=70).step()
    result = models.rebuild(FUNNEL, story).verify()
    assert result.same
    assert (result.at, result.position) == (70, 200)
    models.run("DELETE FROM deal_fact WHERE position = (SELECT max(position) FROM deal_fact)")
    assert not models.rebuild(FUNNEL, story).verify().same


def test_there_has_to_be_a_set_of_this_version_and_log(models: Models) -> None:
    story = random_story(65, 60)
    with pytest.raises(NothingToCompare, match="nothing is there"):
        models.rebuild(FUNNEL, story).verify()
    drain(models.projector(FUNNEL, story))
    with pytest.raises(NothingToCompare, match=FUNNEL.id):
        models.rebuild(Later(), story).verify()
    told, story.events = story.events, story.events[:50]
    with pytest.raises(LogBehind):
        models.rebuild(FUNNEL, story).verify()
    story.events = told
    models.rebuild(Later(), story).run()
    with pytest.raises(NewerProgram):
        models.rebuild(FUNNEL, story).verify()
    assert shadows(models) == 0


def test_a_killed_one_is_gone_on_with(models: Models) -> None:
    story = random_story(66, 120)
    drain(models.projector(FUNNEL, story))

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.rebuild(FUNNEL, story, on_progress=killed).verify()
    assert models.run("SELECT to_regnamespace(%s)", shadow_schema(FUNNEL, models.read))
    assert models.rebuild(FUNNEL, story).verify().same
    assert shadows(models) == 0
