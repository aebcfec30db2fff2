"""R38: what the API ranks, an analyst gets by SQL from `bi` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from domain.definitions import AttributionDefinition
from infra.postgres import connect
from tests.e2e.api.making import amount, campaign, customer
from tests.e2e.api.running import Client, Product

CLOSE = datetime.now(UTC).replace(microsecond=0) - timedelta(days=5)
MODEL = "u"

RANKING = """
WITH held AS (
    SELECT *, {value} AS value FROM bi.dim_campaign WHERE status IN ('running', 'completed')
), opened AS (
    SELECT campaign_id, count(*) AS deals FROM bi.fact_touch WHERE kind = 'opened' GROUP BY 1
), won AS (
    SELECT touch.campaign_id, count(*) AS contracts
    FROM bi.fact_contract AS contract
    JOIN bi.fact_touch AS touch ON touch.deal_id = contract.deal_id GROUP BY 1
), credited AS (
    SELECT campaign_id, sum(credit) AS credit FROM bi.fact_credit
    WHERE model = %(model)s AND currency = 'CNY' GROUP BY 1
), summed AS (
    SELECT value, count(*) AS campaigns, coalesce(sum(deals), 0)::int AS deals,
        coalesce(sum(contracts), 0)::int AS contracts,
        coalesce(sum(cost) FILTER (WHERE currency = 'CNY'), 0) AS cost,
        coalesce(sum(credit) FILTER (WHERE currency = 'CNY'), 0) AS credit
    FROM held LEFT JOIN opened USING (campaign_id) LEFT JOIN won USING (campaign_id)
    LEFT JOIN credited USING (campaign_id) GROUP BY value
)
SELECT value, campaigns, deals, contracts, round(cost, 2)::text, round(credit, 2)::text,
    round((credit - cost) / nullif(cost, 0), 6)
FROM summed
ORDER BY (credit - cost) / nullif(cost, 0) DESC NULLS LAST, credit DESC, coalesce(value, '')
"""

VALUES = {
    "region": "region",
    "method": "channel",
    "month": "to_char(starts_on, 'MM')",
    "product": "product",
    "size_band": """CASE WHEN coalesce(attendees, planned_attendees) < {medium} THEN 'small'
        WHEN coalesce(attendees, planned_attendees) < {large} THEN 'medium'
        WHEN coalesce(attendees, planned_attendees) >= {large} THEN 'large' END""",
}


@pytest.fixture(scope="module")
def filled(start_product: Callable[..., Product]) -> Product:
    """A year of campaigns, most of which have led to deals, many of them won."""
    product, random = start_product(), Random(38)
    with product.client() as client:
        for number in range(14):
            _campaign(client, random, number)
        client.read("/v1/campaigns/ranking")  # waits for all of it
        client.read("/v1/lifecycle")
    return product


def _campaign(client: Client, random: Random, number: int) -> None:
    month, currency = random.randint(1, 9), "EUR" if number == 5 else "CNY"
    of = campaign(
        client,
        *(["submit"] if number == 3 else ["submit", "approve", "start"]),
        name=f"campaign {number}",
        region=random.choice(["north", "south", "east", None]),
        channel=random.choice(["web", "email", "conference"]),
        product=random.choice(["crane", "pump", None]),
        starts_on=f"2026-{month:02}-01",
        ends_on=f"2026-{month:02}-28",
        budget=amount("5000.00", currency),
        plan={"attendees": random.choice([20, 80, 2000])} if number % 3 else None,
    )
    if number == 3:
        return
    if number % 4:
        client.done(
            f"/v1/campaigns/{of}/costs",
            {"amount": amount(f"{random.randint(1, 900)}.{number:02}", currency), "reference": "x"},
        )
    if number % 5 == 1:
        client.done(f"/v1/campaigns/{of}/attendance", {"attendees": random.randint(1, 1000)})
    for _ in range(random.randint(0, 4)):
        at = CLOSE - timedelta(days=random.randint(10, 60))
        money = random.choice([currency, currency, currency, "EUR"])
        body = {
            "customer_id": customer(client, occurred_at=(at - timedelta(days=60)).isoformat()),
            "name": "crane",
            "amount": amount("1000.00", money),
            "campaign_id": of,
            "occurred_at": at.isoformat(),
        }
        deal = client.done("/v1/opportunities", body)["id"]
        if random.random() < 0.7:
            value = amount(f"{random.randint(100, 3000)}.{number:02}", money)
            client.done(
                f"/v1/opportunities/{deal}/contract",
                {
                    "amount": value,
                    "signed_on": CLOSE.date().isoformat(),
                    "occurred_at": CLOSE.isoformat(),
                },
            )


@pytest.fixture
def report(filled: Product) -> Iterator[Callable[[str], list[Any]]]:
    """Asks as those may who make reports."""
    connection = connect(filled.database_url, role="bi_reader")

    def ask(by: str) -> list[Any]:
        with connection.cursor() as cursor:
            medium, large = AttributionDefinition().size_limits
            value = VALUES[by].format(medium=medium, large=large)
            cursor.execute(RANKING.format(value=value), {"model": MODEL})
            return cursor.fetchall()

    yield ask
    connection.close()


@pytest.mark.parametrize("by", list(VALUES))
def test_the_ranking_is_the_same(
    filled: Product, report: Callable[[str], list[Any]], by: str
) -> None:
    """R38: by each trait."""
    with filled.client() as client:
        answer = client.read("/v1/campaigns/ranking", by=by, model=MODEL)
    assert [row["rank"] for row in answer["ranking"]] == list(range(1, len(answer["ranking"]) + 1))
    told = [
        (
            row["value"],
            row["campaigns"],
            row["deals"],
            row["contracts"],
            row["cost"]["value"],
            row["credit"]["value"],
            None if row["return"] is None else float(row["return"]),
        )
        for row in answer["ranking"]
    ]
    found = [(*row[:6], None if row[6] is None else float(row[6])) for row in report(by)]
    assert found == told
    assert len(found) > 2
    assert any(row[4] != "0.00" and row[5] != "0.00" for row in found)
