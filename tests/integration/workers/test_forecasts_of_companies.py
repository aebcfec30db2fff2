"""Whether what was learned from the past foretells better than what was defined: on the sample
company, and on a public sales history. The tables are in docs/decisions/0014."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from domain.definitions import ForecastDefinition
from infra.migrations import migrate
from infra.postgres import connect
from projections import funnel
from projections.funnel import MethodScore
from projections.reading import Moment
from tests.integration.workers.conftest import Installation
from workers.importing.course import ALL_IN
from workers.rebuilding import How, rebuild_models

pytestmark = [pytest.mark.database, pytest.mark.oracle]

DEFINED = ("half_elapsed", "full_duration", "aged")
SALES = Path(__file__).parents[4] / "shared" / "data" / "crm_sales" / "sales_pipeline.csv"
WINDOWS = pytest.mark.parametrize(("months", "horizon"), [(12, 1), (12, 3), (24, 1), (24, 3)])


def scores(
    installation: Installation, as_of: datetime, months: int, horizon: int, currency: str = "CNY"
) -> dict[str, MethodScore]:
    """By method, of the pipeline that the most deals are in."""
    connection = connect(installation.url, role="crm_reader", search_path=["read"])
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pipeline_id FROM deal_period GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        )
        ((pipeline_id,),) = cursor.fetchall()
        found = funnel.backtest(
            connection,
            Moment(as_of),
            pipeline_id=pipeline_id,
            currency=currency,
            timezone=ZoneInfo("UTC"),
            definition=ForecastDefinition(),
            ends=funnel.month_ends(as_of, ZoneInfo("UTC"), months, horizon),
            horizon=horizon,
        )
    connection.close()
    assert found is not None
    return {score.method: score for score in found.scores}


def beats_the_definition(found: dict[str, MethodScore]) -> bool:
    """By what was off in all, and by the chances of single deals."""
    learned = found["learned"]
    assert learned.open.wape is not None
    assert learned.brier is not None
    return all(
        learned.open.wape < (found[method].open.wape or 0)
        and learned.brier < (found[method].brier or 0)
        for method in DEFINED
    )


@pytest.fixture(scope="module")
def sample_company(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    return _installed(request, tmp_path_factory.mktemp("company"), "company")


@pytest.fixture(scope="module")
def public_history(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    if not SALES.is_file():
        absent = "the sample data is not there: shared/data/crm_sales beside the project"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    return _installed(request, tmp_path_factory.mktemp("sales"), "sales")


def _installed(request: pytest.FixtureRequest, folder: Path, which: str) -> Installation:
    url = request.getfixturevalue("new_database")()
    migrate(url)
    installation = Installation(url, folder)
    if which == "company":
        assert installation.demo(seed=1, until=date(2026, 11, 28)) == 0, installation.said
    else:
        assert installation.load(SALES, "crm_sales") == ALL_IN, installation.said
    assert rebuild_models(installation.settings(), ["funnel"], How(), lambda _: None) == 0
    return installation


@WINDOWS
def test_on_the_sample_company(sample_company: Installation, months: int, horizon: int) -> None:
    as_of = datetime(2026, 11, 28, tzinfo=UTC)
    assert beats_the_definition(scores(sample_company, as_of, months, horizon))


@pytest.mark.parametrize("horizon", [1, 3])
def test_on_a_public_history(public_history: Installation, horizon: int) -> None:
    as_of = datetime(2018, 1, 1, tzinfo=UTC)
    assert beats_the_definition(scores(public_history, as_of, 12, horizon, "USD"))
