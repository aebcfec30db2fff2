"""The views for BI: keys are unique, references whole, everything is described, also for dbt."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dbt import describe
from domain.customer import Customer
from domain.values import CustomerKind, ExternalId, Personal
from projections.catalogue import PROJECTIONS
from projections.star import KEYS, REFERENCES
from tests.integration.projections.conftest import Models
from tests.integration.projections.promises import broken
from tests.integration.projections.story import START, Story, named
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

VIEWS = {view.name: view for one in PROJECTIONS.values() for view in one.views}
PAGE = Path(__file__).parents[3] / "docs" / "bi.md"
STAR = {
    "dim_customer",
    "dim_campaign",
    "dim_person",
    "dim_owner",
    "dim_stage",
    "dim_date",
    "fact_stage_visit",
    "fact_lifecycle_period",
    "fact_touch",
    "fact_credit",
    "fact_order",
    "fact_delivery",
    "fact_contract",
}


def test_the_star_is_there_and_every_view_has_a_key() -> None:
    assert set(VIEWS) >= STAR
    assert set(VIEWS) == set(KEYS)
    for view, key in KEYS.items():
        assert set(key) <= set(VIEWS[view].columns)
    for (view, column), (other, target) in REFERENCES.items():
        assert column in VIEWS[view].columns
        assert KEYS[other] == (target,)


def test_the_page_has_every_view_and_the_keys_of_the_star() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for view in VIEWS:
        assert f"`{view}`" in text
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| `(dim|fact)_", line)]
    assert {row[0].strip("| `"): tuple(re.findall(r"`(\w+)`", row[2])) for row in rows} == {
        view: KEYS[view] for view in STAR
    }


def test_every_id_refers_to_something() -> None:
    """A column called like the key of a dimension is a reference to it."""
    dimensions = {KEYS[name][0]: name for name in KEYS if name.startswith("dim_")}
    dimensions.pop("date")
    for name, view in VIEWS.items():
        for column in view.columns:
            if column in dimensions and KEYS[name] != (column,):
                assert (name, column) in REFERENCES


@pytest.mark.parametrize("seed", range(12))
def test_keys_are_unique_and_references_whole(models: Models, seed: int) -> None:
    models.project(random_story(seed, 250, customers=6))
    for view in STAR - {"fact_order", "fact_delivery"}:
        assert models.run(f"SELECT count(*) FROM {view}") != [(0,)], view
    assert broken(models.run) == []


def test_a_key_or_reference_that_does_not_hold_is_found(models: Models) -> None:
    models.project(random_story(3, 120))
    models.run("UPDATE customer_period SET customer_id = gen_random_uuid()")
    models.run("ALTER TABLE deal_period DROP CONSTRAINT deal_period_pkey")
    models.run("INSERT INTO deal_period SELECT * FROM deal_period")
    found = broken(models.run)
    assert any(one.startswith("deal has ") for one in found)
    assert any(one.startswith("deal.customer_id ") for one in found)


def test_the_calendar(models: Models) -> None:
    models.project(Story())
    rows = models.run(
        "SELECT date, year, quarter, month, day, year_month, month_name, day_of_year, iso_year,"
        " iso_week, weekday, weekday_name, weekend, month_start, month_end FROM dim_date"
    )
    first, last = date(1990, 1, 1), date(2050, 12, 31)
    assert len(rows) == (last - first).days + 1
    for number, row in enumerate(sorted(rows)):
        day = first + timedelta(days=number)
        iso = day.isocalendar()
        following = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        assert row == (
            day,
            day.year,
            (day.month + 2) // 3,
            day.month,
            day.day,
            f"{day:%Y-%m}",
            f"{day:%B}",
            day.timetuple().tm_yday,
            iso.year,
            iso.week,
            iso.weekday,
            f"{day:%A}",
            iso.weekday >= 6,
            day.replace(day=1),
            following - timedelta(days=1),
        )


class TestPersons:
    @pytest.fixture
    def told(self, models: Models) -> Models:
        story = Story()
        acme = story.customer(
            "acme",
            region="north",
            industry="retail",
            source="fair",
            external_id=ExternalId("o", "7"),
        )
        ann = story.customer(
            "ann",
            kind=CustomerKind.PERSON,
            name=None,
            personal_name=Personal(named("ann"), "Ann Lee", "1.sealed"),
            external_id=ExternalId("shop", "ann.lee@example.com"),
            attributes={"mail": "ann.lee@example.com"},
        )
        story.tell(
            acme,
            Customer.ContactAdded,
            START + timedelta(days=2),
            contact_id=named("bob"),
            name=Personal(named("bob"), "Bob", "1.bob"),
            department="sales",
            level="decision",
            role="holder of the budget",
            email=Personal(named("bob"), "bob@example.com", "1.mail"),
            phone=Personal(named("bob"), "123", "1.phone"),
        )
        story.tell(acme, Customer.ProfileChanged, START + timedelta(days=3), region="south")
        story.tell(ann, Customer.ProfileChanged, START + timedelta(days=3), region="south")
        models.project(story)
        return models

    def test_customers_and_persons(self, told: Models) -> None:
        acme, ann, bob = named("acme"), named("ann"), named("bob")
        third = START + timedelta(days=3)
        rows = told.run(
            "SELECT customer_id, kind, name, region, industry, source, external_source,"
            " external_id, registered_at, profile_since FROM dim_customer ORDER BY kind"
        )
        assert rows == [
            (acme, "company", "acme", "south", "retail", "fair", "o", "7", START, third),
            (ann, "person", str(ann), "south", None, None, None, None, START, third),
        ]
        assert told.run("SELECT * FROM dim_person ORDER BY kind") == [
            (bob, acme, "contact", "sales", "decision", "holder of the budget",
             START + timedelta(days=2)),
            (ann, ann, "customer", None, None, None, START),
        ]  # fmt: skip

    def test_no_view_has_a_name_an_address_or_a_sealed_text(self, told: Models) -> None:
        for view in VIEWS:
            text = str(told.run(f"SELECT to_jsonb(v)::text FROM {view} AS v"))
            for secret in ("1.sealed", "1.bob", "1.mail", "1.phone", "example.com", "Ann", "Bob"):
                assert secret not in text, view


class TestDbt:
    def test_the_file_is_as_the_code_has_it(self) -> None:
        assert describe.PATH.read_text(encoding="utf-8") == describe.text()  # make dbt

    def test_it_has_the_views_and_columns_there_are(self, models: Models) -> None:
        models.project(Story())
        there: dict[str, list[str]] = {}
        for view, column in models.run(
            "SELECT table_name::text, column_name::text FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name <> 'migration' ORDER BY ordinal_position",
            models.bi,
        ):
            there.setdefault(view, []).append(column)
        tables = [table for table in self.tables() if "columns" in table]
        assert {
            table["name"]: [column["name"] for column in table["columns"]] for table in tables
        } == there
        for table in tables:
            assert table["description"]
            assert all(column["description"] for column in table["columns"])

    def test_each_read_model_has_its_freshness(self, models: Models) -> None:
        models.project(Story())
        tables = [table for table in self.tables() if "freshness" in table]
        assert len(tables) == len(PROJECTIONS)
        for table in tables:
            view, column = table["identifier"], table["loaded_at_field"]
            [(at,)] = models.run(
                f"SELECT max({column}) FROM {view} WHERE {table['freshness']['filter']}"
            )
            assert at is not None

    @staticmethod
    def tables() -> list[dict[str, Any]]:
        [source] = yaml.safe_load(describe.PATH.read_text(encoding="utf-8"))["sources"]
        assert source["schema"] == "bi"
        tables: list[dict[str, Any]] = source["tables"]
        return tables


def test_freshness_moves_with_the_log(models: Models) -> None:
    story = Story()
    story.customer("acme")
    models.project(story)
    rows = models.run("SELECT read_model, id, position, parked, moved_at FROM freshness")
    assert {row[:4] for row in rows} == {(n, p.id, 1, 0) for n, p in PROJECTIONS.items()}
    story.customer("bolt")
    models.project(story)
    later = dict(models.run("SELECT read_model, moved_at FROM freshness WHERE position = 2"))
    assert all(later[row[0]] > row[4] for row in rows)
