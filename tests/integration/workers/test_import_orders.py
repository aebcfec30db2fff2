"""Imports of orders: what goes in, what is reported, and what a second run does."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from domain.values import ExternalId, stream_id
from tests.integration.workers.conftest import Installation
from workers.importing import run_orders
from workers.importing.course import ALL_IN, SOME_NOT, USAGE
from workers.loop import INTERRUPTED

pytestmark = pytest.mark.database

HEADER = "id,customer,name,placed,amount,currency,cost"
CDNOW = """\
 customer_id  date number_of_cds  dollar_value
 00001 19970101  1   11.77
 00002 19970112  1   12.00
 00002 19970112  5   77.00
 00398 19980518  1   12.99
 00398 19980518  1   12.99
 00004 19971212  1    0.00
""".replace("\n", "\r\n")


class Orders:
    """Runs ``crm import orders`` on an installation."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def file(self, *lines: str, header: str = HEADER) -> Path:
        return self.installation.file(*lines, header=header, name="orders.csv")

    def load(self, path: Path, mapping: str = "orders", **options: Any) -> int:
        installation = self.installation
        settings = installation.settings(**options.pop("settings", {}))
        console = Console(file=io.StringIO(), width=200)
        report = installation.folder / "report.ndjson"
        code = run_orders(settings, path, mapping, report=report, console=console, **options)
        self.said = console.file.getvalue()  # type: ignore[attr-defined]
        return code

    def placed(self) -> list[tuple[str, str, str]]:
        """Order, amount and day of each that was placed."""
        events = self.installation.events("crm.customer.order-placed")
        return [
            (
                event.state["order_id"],
                event.state["amount"]["value"],
                event.occurred_at.date().isoformat(),
            )
            for event in events
        ]


@pytest.fixture
def orders(installation: Installation) -> Orders:
    return Orders(installation)


@pytest.fixture
def cdnow(installation: Installation) -> Path:
    path = installation.folder / "CDNOW_master.txt"
    path.write_text(CDNOW, newline="")
    return path


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_the_purchase_log(orders: Orders, cdnow: Path, header: bool) -> None:
    if not header:
        cdnow.write_text(CDNOW.split("\n", 1)[1], newline="")
    assert orders.load(cdnow, "cdnow") == ALL_IN, orders.said
    assert (
        "6 lines: 6 new orders, 0 unchanged, 0 reported. 4 new customers;"
        " 1 orders of amount 0: they count as orders, not in sums." in orders.said
    )
    assert sorted(orders.placed()) == [
        ("1997-01-01 11.77 USD", "11.77", "1997-01-01"),
        ("1997-01-12 12.00 USD", "12.00", "1997-01-12"),
        ("1997-01-12 77.00 USD", "77.00", "1997-01-12"),
        ("1997-12-12 0.00 USD", "0.00", "1997-12-12"),
        ("1998-05-18 12.99 USD", "12.99", "1998-05-18"),
        ("1998-05-18 12.99 USD #2", "12.99", "1998-05-18"),
    ]
    customers = orders.installation.events("crm.customer.registered")
    assert {event.stream_id for event in customers} == {
        stream_id("customer", ExternalId("cdnow", id_))
        for id_ in ("00001", "00002", "00004", "00398")
    }
    assert {event.state["kind"] for event in customers} == {"person"}
    first = next(event for event in customers if event.state["external_id"]["id"] == "00398")
    assert (first.occurred_at, first.actor) == (datetime(1998, 5, 18, tzinfo=UTC), "import:cdnow")
    line = 5 if header else 4
    assert first.reason == f"import of CDNOW_master.txt, line {line}"


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
def test_a_second_run_adds_nothing(orders: Orders, cdnow: Path, receipts: bool) -> None:
    orders.load(cdnow, "cdnow")
    before = orders.installation.events()
    if not receipts:
        orders.installation.forget_receipts()
    assert orders.load(cdnow, "cdnow") == ALL_IN
    assert "0 new orders, 6 unchanged, 0 reported. 0 new customers" in orders.said
    assert orders.installation.events() == before


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
def test_a_longer_file_adds_what_is_new(orders: Orders, cdnow: Path, receipts: bool) -> None:
    orders.load(cdnow, "cdnow")
    if not receipts:
        orders.installation.forget_receipts()
    cdnow.write_text(CDNOW + " 00398 19980518  1   12.99\n 00001 19980101  1   11.77\n", newline="")
    assert orders.load(cdnow, "cdnow") == ALL_IN
    assert "2 new orders, 6 unchanged" in orders.said
    ids = [order for order, _, _ in orders.placed()]
    assert ids[-2:] == ["1998-05-18 12.99 USD #3", "1998-01-01 11.77 USD"] or ids[-2:] == [
        "1998-01-01 11.77 USD",
        "1998-05-18 12.99 USD #3",
    ]


def test_orders_with_ids_costs_and_names(orders: Orders) -> None:
    path = orders.file(
        "A1,7,Acme,2024-02-01,12.50,EUR,8.25",
        "A2,7,,2024-02-01,12.50,EUR,",
        "A1,8,,2024-01-31,7,,",
    )
    settings = {"CRM_TIMEZONE": "Asia/Shanghai", "CRM_CURRENCY": "JPY"}
    assert orders.load(path, settings=settings) == ALL_IN, orders.said
    placed = orders.installation.events("crm.customer.order-placed")
    by_line = {event.reason: event for event in placed}
    first = by_line["import of orders.csv, line 2"]
    assert first.occurred_at == datetime(2024, 1, 31, 16, tzinfo=UTC)
    assert first.state["cost"] == {"value": "8.25", "currency": "EUR"}
    assert by_line["import of orders.csv, line 4"].state["amount"]["currency"] == "JPY"
    customers = orders.installation.events("crm.customer.registered")
    told = {event.state["external_id"]["id"]: event.state for event in customers}
    assert (told["7"]["name"], told["7"]["identified"]) == ("Acme", True)
    assert (told["8"].get("name"), told["8"]["identified"]) == (None, False)


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("12.50", "13", "amount: 12.50 EUR here, 13.00 EUR in the file"),
        ("8.25", "8", "cost: 8.25 EUR here, 8.00 EUR in the file"),
        ("8.25", "", "cost: 8.25 EUR here, nothing in the file"),
        ("02-02", "02-03", "placed: 2024-02-02T00:00:00+00:00 here, 2024-02-03T00:00:00+00:00"),
    ],
    ids=["amount", "cost", "no cost", "day"],
)
def test_a_changed_order_is_reported_and_left(
    orders: Orders, before: str, after: str, message: str, receipts: bool
) -> None:
    lines = ["A0,7,Acme,2024-02-01,1,EUR,", "A1,7,Acme,2024-02-02,12.50,EUR,8.25"]
    orders.load(orders.file(*lines))
    events = orders.installation.events()
    if not receipts:
        orders.installation.forget_receipts()
    lines[1] = lines[1].replace(before, after, 1)
    assert orders.load(orders.file(*lines)) == SOME_NOT
    assert orders.installation.reported() == [(3, "A1", "changed")]
    assert orders.installation.messages()[0].startswith(message)
    assert orders.installation.events() == events


def test_a_customer_that_is_here_stays_as_it_is(orders: Orders) -> None:
    orders.load(orders.file("A1,7,Acme,2024-02-01,1,EUR,"))
    path = orders.file("A2,7,Other,2024-03-01,1,EUR,", "A3,7,Other,2024-01-31,1,EUR,")
    assert orders.load(path) == SOME_NOT
    assert orders.installation.reported() == [(3, "A3", "before-first-event")]
    assert [e.state["name"] for e in orders.installation.events("crm.customer.registered")] == [
        "Acme"
    ]
    assert len(orders.placed()) == 2


def test_customers_may_be_dated_before_their_first_line(
    orders: Orders, installation: Installation
) -> None:
    mapping = installation.folder / "mine.toml"
    shipped = Path("workers/mappings/orders.toml").read_text()
    mapping.write_text(shipped.replace('registered = "first"', "registered = 2024-01-01"))
    orders.load(orders.file("A1,7,Acme,2024-02-01,1,EUR,"), str(mapping))
    assert orders.load(orders.file("A0,7,Acme,2024-01-15,1,EUR,"), str(mapping)) == ALL_IN
    assert [day for _, _, day in orders.placed()] == ["2024-02-01", "2024-01-15"]


def test_customers_may_have_to_be_here(orders: Orders, installation: Installation) -> None:
    mapping = installation.folder / "mine.toml"
    shipped = Path("workers/mappings/orders.toml").read_text()
    mapping.write_text(shipped.replace('missing = "register"', 'missing = "refuse"'))
    orders.load(orders.file("A1,7,Acme,2024-02-01,1,EUR,"))
    path = orders.file("A2,7,,2024-02-01,2,EUR,", "A3,8,,2024-02-01,1,EUR,")
    assert orders.load(path, str(mapping)) == SOME_NOT
    assert installation.reported() == [(3, "A3", "customer-not-found")]
    assert installation.messages() == ["there is no customer '8' of 'generic'"]
    assert len(orders.placed()) == 2


BAD = [
    (",7,Acme,2024-02-01,1,EUR,", "missing-id"),
    ("B1,,Acme,2024-02-01,1,EUR,", "customer-missing"),
    ("B2,7,Acme,,1,EUR,", "placed-missing"),
    ("B3,7,Acme,01.02.2024,1,EUR,", "bad-date"),
    ("B4,7,Acme,2999-02-01,1,EUR,", "in-the-future"),
    ("B5,7,Acme,1900-01-01,1,EUR,", "invalid-date"),
    ("B6,7,Acme,2024-02-01,,EUR,", "amount-missing"),
    ("B7,7,Acme,2024-02-01,1e3,EUR,", "bad-number"),
    ("B8,7,Acme,2024-02-01,-1,EUR,", "negative-amount"),
    ("B9,7,Acme,2024-02-01,1,EUR,-1", "negative-cost"),
    ("B10,7,Acme,2024-02-01,1,EURO,", "invalid-money"),
    ("B11,7,Acme,2024-02-01,1", "columns"),
    ("A1,7,Acme,2024-02-01,1,EUR,", "duplicate-id"),
    (f"{'x' * 201},7,Acme,2024-02-01,1,EUR,", "invalid-text"),
]


@pytest.mark.parametrize("run", ["first", "second"])
def test_bad_lines_are_reported_and_the_rest_goes_in(orders: Orders, run: str) -> None:
    good = "A1,7,Acme,2024-02-01,1,EUR,"
    path = orders.file(good, *(line for line, _ in BAD), "A2,7,Acme,2024-02-01,1,EUR,")
    if run == "second":
        orders.load(path)
    assert orders.load(path) == SOME_NOT
    reported = orders.installation.reported()
    assert [(line, problem) for line, _, problem in reported] == [
        (n, problem) for n, (_, problem) in enumerate(BAD, 3)
    ]
    assert [order for order, _, _ in orders.placed()] == ["A1", "A2"]


def test_columns_by_their_widths(orders: Orders, installation: Installation) -> None:
    mapping = installation.folder / "mine.toml"
    mapping.write_text(
        """
imports = "orders"
source = "old"
[file]
names = ["who", "day", "sum"]
widths = [5, 8, 9]
dates = "%Y%m%d"
[columns]
customer = "who"
placed = "day"
amount = "sum"
"""
    )
    path = installation.folder / "orders.txt"
    path.write_text("A  B 20240201     1.50\nC    20240202  1000.25   \nD\n")
    assert orders.load(path, str(mapping)) == SOME_NOT
    assert installation.reported() == [(3, "", "columns")]
    assert sorted(orders.placed()) == [
        ("2024-02-01 1.50 CNY", "1.50", "2024-02-01"),
        ("2024-02-02 1000.25 CNY", "1000.25", "2024-02-02"),
    ]


@pytest.mark.parametrize(
    ("content", "mapping", "said"),
    [
        ("id,customer\n", "orders", "there is no column 'name' (columns.name of the mapping)"),
        ("", "orders", "is empty"),
        (HEADER, "generic", "this is a mapping of opportunities, not of orders"),
        (HEADER, "nothing", "shipped mappings are cdnow, orders"),
    ],
    ids=["columns", "empty", "deals", "unknown"],
)
def test_files_that_cannot_be_used(orders: Orders, content: str, mapping: str, said: str) -> None:
    path = orders.installation.folder / "orders.csv"
    path.write_text(content)
    assert orders.load(path, mapping) == USAGE
    assert said in orders.said
    assert orders.installation.events() == []


def test_it_can_be_stopped_and_goes_on(orders: Orders) -> None:
    installation = orders.installation
    path = orders.file(*(f"A{n},{n % 50},,2024-02-01,{n},EUR," for n in range(3000)))

    def stop() -> None:
        while not installation.query(
            "SELECT 1 FROM log.events WHERE topic = 'crm.customer.order-placed' LIMIT 1"
        ):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert orders.load(path) == INTERRUPTED
    stopper.join()
    there = len(orders.placed())
    assert 0 < there < 3000
    assert orders.load(path) == ALL_IN
    assert f"{3000 - there:,} new orders, {there:,} unchanged" in orders.said
    counts = Counter(order for order, _, _ in orders.placed())
    assert len(counts) == 3000
    assert set(counts.values()) == {1}


SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "cdnow" / "CDNOW_master.txt"


def _sample(lines: int, folder: Path) -> Path:
    if not SAMPLE.is_file():
        absent = "the sample data is not there: shared/data/cdnow beside the project"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    with SAMPLE.open(newline="") as file:
        head = "".join(line for _, line in zip(range(lines + 1), file, strict=False))
    path = folder / "CDNOW_master.txt"
    path.write_text(head, newline="")
    return path


@pytest.mark.parametrize(
    "lines", [400, pytest.param(69_659, marks=pytest.mark.oracle)], ids=["some", "all"]
)
def test_the_real_purchase_log(orders: Orders, lines: int) -> None:
    path = _sample(lines, orders.installation.folder)
    rows = [line.split() for line in path.read_text().splitlines()[1:]]
    assert len(rows) == lines
    for said in (f"{lines:,} new orders, 0 unchanged", f"0 new orders, {lines:,} unchanged"):
        assert orders.load(path, "cdnow") == ALL_IN, orders.said
        assert said in orders.said
    found = orders.installation.query(
        "SELECT count(*), count(DISTINCT stream_id),"
        " sum((convert_from(state, 'UTF8')::jsonb -> 'amount' ->> 'value')::numeric),"
        " count(*) FILTER (WHERE (convert_from(state, 'UTF8')::jsonb -> 'amount' ->> 'value')"
        "   = '0.00'), min(occurred_at), max(occurred_at)"
        " FROM log.events WHERE topic = 'crm.customer.order-placed'"
    )[0]
    assert found[:4] == (
        lines,
        len({row[0] for row in rows}),
        sum(Decimal(row[3]) for row in rows),
        sum(row[3] == "0.00" for row in rows),
    )
    days = sorted(row[1] for row in rows)
    assert (f"{found[4]:%Y%m%d}", f"{found[5]:%Y%m%d}") == (days[0], days[-1])
    if lines == 69_659:
        assert found[1] == 23_570
