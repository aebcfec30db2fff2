"""From a record to a deal: what is taken, and what is refused and why."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from domain.values import Money
from workers.importing.deals import Deal, Reader
from workers.importing.lookups import read_lookups
from workers.importing.mapping import File, load_mapping
from workers.importing.records import FileError, LineError, Table

TODAY = date(2024, 6, 30)
HEADER = [
    "id",
    "name",
    "account",
    "owner",
    "stage",
    "amount",
    "currency",
    "opened",
    "expected_close",
    "closed",
    "outcome",
    "loss_cause",
    "competitor",
]
GOOD = {
    "id": "7",
    "name": "press",
    "account": "Acme",
    "stage": "bid",
    "amount": "12.50",
    "currency": "EUR",
    "opened": "2024-01-31",
}
SALES = [
    "opportunity_id",
    "sales_agent",
    "product",
    "account",
    "deal_stage",
    "engage_date",
    "close_date",
    "close_value",
]
SOLD = {
    "opportunity_id": "A1",
    "sales_agent": "Anna Snelling",
    "product": "GTXPro",
    "account": "Acme",
    "deal_stage": "Won",
    "engage_date": "20-10-16",
    "close_date": "01-03-17",
    "close_value": "4500",
}


def read(
    folder: Path,
    header: list[str],
    row: dict[str, str],
    mapping: str = "generic",
    file: File | None = None,
) -> Deal:
    path = folder / "deals.csv"
    values = ",".join(row.get(name, "") for name in header)
    path.write_text(f"{','.join(header)}\n{values}\n", encoding="utf-8")
    given = load_mapping(mapping)
    if file is not None:
        given = given.model_copy(update={"file": file})
    table = Table(path)
    reader = Reader(table, given, read_lookups(given, folder), "CNY", TODAY)
    return reader.deal(next(table.records()))


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A folder with the files beside the sample's pipeline."""
    (tmp_path / "products.csv").write_text("product,series,sales_price\nGTX Pro,GTX,4821\n")
    (tmp_path / "accounts.csv").write_text(
        "account,sector,year_established,revenue,employees,office_location,subsidiary_of\n"
        "Acme,technolgy,1996,1100.04,2822,Philipines,\n"
    )
    (tmp_path / "sales_teams.csv").write_text(
        "sales_agent,manager,regional_office\nAnna Snelling,Dustin Brinkmann,Central\n"
    )
    return tmp_path


def test_a_plain_line(tmp_path: Path) -> None:
    deal = read(tmp_path, HEADER, GOOD)
    assert (deal.line, deal.external_id.source, deal.external_id.id) == (2, "generic", "7")
    assert (deal.stage, deal.outcome, deal.closed) == ("bid", None, None)
    assert deal.amount == Money(Decimal("12.50"), "EUR")
    assert deal.opened == date(2024, 1, 31)


def test_the_currency_of_the_installation(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER, GOOD | {"currency": ""}).amount.currency == "CNY"


def test_won_and_lost(tmp_path: Path) -> None:
    won = read(tmp_path, HEADER, GOOD | {"outcome": "won", "closed": "2024-02-01"})
    assert (won.outcome, won.contract) == ("won", won.amount)
    lost = read(tmp_path, HEADER, GOOD | {"outcome": "lost", "closed": "2024-01-31"})
    assert (lost.outcome, lost.contract) == ("lost", None)
    assert (lost.cause, lost.competitor) == ("unknown", "unknown")


def test_thousands_and_a_decimal_comma(tmp_path: Path) -> None:
    written = File(decimal=",", thousands=".")
    # in quotes, since the comma separates fields, too
    deal = read(tmp_path, HEADER, GOOD | {"amount": '"1.234.567,5"'}, file=written)
    assert deal.amount.value == Decimal("1234567.50")
    with pytest.raises(LineError, match="is not a number"):
        read(tmp_path, HEADER, GOOD | {"amount": '"1.23,5"'}, file=written)


def test_the_sample(sales: Path) -> None:
    deal = read(sales, SALES, SOLD, "crm_sales")
    assert (deal.name, deal.product, deal.stage) == ("GTX Pro", "GTX Pro", "Engaging")
    assert deal.amount == Money(Decimal("4821.00"), "USD")
    assert deal.contract == Money(Decimal("4500.00"), "USD")
    assert (deal.opened, deal.closed) == (date(2016, 10, 20), date(2017, 3, 1))
    assert deal.outcome == "won"


def test_an_open_deal_of_the_sample(sales: Path) -> None:
    blank = {"deal_stage": "Prospecting", "engage_date": "", "close_date": "", "close_value": ""}
    deal = read(sales, SALES, SOLD | blank | {"account": ""}, "crm_sales")
    assert (deal.stage, deal.outcome, deal.opened, deal.account) == (
        "Prospecting",
        None,
        None,
        None,
    )
    assert deal.amount == Money(Decimal("4821.00"), "USD")


def test_what_lies_beside_the_sample(sales: Path) -> None:
    lookups = read_lookups(load_mapping("crm_sales"), sales)
    assert lookups.accounts is not None
    assert lookups.owners is not None
    acme = lookups.accounts["Acme"]
    assert (acme.industry, acme.region) == ("technology", "Philippines")
    assert acme.attributes == {
        "year_established": 1996,
        "revenue_million_usd": 1100.04,
        "employees": 2822,
    }
    assert lookups.owners["Anna Snelling"].manager == "Dustin Brinkmann"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": " "}, "missing-id"),
        ({"id": "x" * 201}, "invalid-text"),
        ({"name": ""}, "invalid-text"),
        ({"name": "x" * 201}, "invalid-text"),
        ({"name": "a\x00b"}, "invalid-text"),
        ({"account": ""}, "account-missing"),
        ({"account": "x" * 201}, "invalid-text"),
        ({"stage": "Bid"}, "unknown-stage"),
        ({"stage": ""}, "unknown-stage"),
        ({"outcome": "perhaps"}, "unknown-outcome"),
        ({"amount": ""}, "amount-missing"),
        ({"amount": "12,5"}, "columns"),
        ({"amount": "1e3"}, "bad-number"),
        ({"amount": "NaN"}, "bad-number"),
        ({"amount": "٣"}, "bad-number"),
        ({"amount": "-1"}, "negative-amount"),
        ({"amount": "1.234"}, "invalid-money"),
        ({"amount": "9" * 16}, "invalid-money"),
        ({"currency": "EURO"}, "invalid-money"),
        ({"opened": ""}, "opened-missing"),
        ({"opened": "31.01.2024"}, "bad-date"),
        ({"opened": "2024-02-30"}, "bad-date"),
        ({"opened": "2024-07-01"}, "in-the-future"),
        ({"opened": "1024-07-01"}, "invalid-date"),
        ({"expected_close": "soon"}, "bad-date"),
        ({"outcome": "won"}, "closed-missing"),
        ({"outcome": "lost", "closed": "2024-01-30"}, "closed-before-opened"),
        ({"outcome": "won", "closed": "2024-07-01"}, "in-the-future"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    with pytest.raises(LineError) as raised:
        read(tmp_path, HEADER, GOOD | change)
    assert raised.value.problem == problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"product": "GTX Max"}, "unknown-product"),
        ({"product": ""}, "invalid-text"),
        ({"close_value": ""}, "amount-missing"),
        ({"close_value": "-1", "deal_stage": "Lost"}, "negative-amount"),
        ({"deal_stage": "won"}, "unknown-stage"),
    ],
)
def test_what_is_refused_of_the_sample(sales: Path, change: dict[str, str], problem: str) -> None:
    with pytest.raises(LineError) as raised:
        read(sales, SALES, SOLD | change, "crm_sales")
    assert raised.value.problem == problem


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("products.csv", "product,sales_price\nA,x\n", "products.csv, line 2: price 'x'"),
        ("products.csv", "product,sales_price\nA,1\nA,2\n", "line 3: 'A' stands in an earlier"),
        ("products.csv", "product,sales_price\nA,-1\n", "line 2: the price is negative"),
        ("products.csv", "product,sales_price\nA\n", "line 2: has 1 columns, the header 2"),
        ("products.csv", "product,cost\n", r"no column 'sales_price' \(prices\.price"),
        ("products.csv", "", "is empty"),
        (
            "accounts.csv",
            "account,sector,year_established,revenue,employees,office_location,subsidiary_of\n"
            "Acme,x,1996.5,1,1,,\n",
            "accounts.csv, line 2: year_established is not a whole number",
        ),
        ("accounts.csv", "account\n", "no column 'sector'"),
        ("sales_teams.csv", "sales_agent,manager,regional_office\n,x,y\n", "owner's name"),
    ],
)
def test_files_beside_it_are_to_be_right(
    sales: Path, file: str, content: str, message: str
) -> None:
    (sales / file).write_text(content)
    with pytest.raises(FileError, match=message):
        read(sales, SALES, SOLD, "crm_sales")
