"""A mapping is checked strictly, and what is wrong is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.importing.fact_mapping import OrderLayout, ResponseLayout
from workers.importing.mapping import MappingError, load_mapping, shipped

GOOD = """
source = "old"
[columns]
id = "id"
name = "name"
stage = "stage"
opened = "opened"
account = "account"
amount = "amount"
outcome = "outcome"
closed = "closed"
[outcomes]
won = "won"
"""


def load(folder: Path, text: str) -> object:
    path = folder / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return load_mapping(str(path))


def test_those_shipped_are_good() -> None:
    assert shipped() == ["crm_sales", "generic"]
    for name in shipped():
        assert load_mapping(name).source == name
    assert shipped("orders") == ["cdnow", "orders"]
    assert shipped("responses") == ["responses"]
    for name in shipped("orders"):
        load_mapping(name, OrderLayout)
    load_mapping("responses", ResponseLayout)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("crm_sales", OrderLayout, "this is a mapping of opportunities, not of orders"),
        ("orders", ResponseLayout, "this is a mapping of orders, not of responses"),
    ],
    ids=["deals as orders", "orders as responses"],
)
def test_a_mapping_of_something_else(
    name: str, kind: type[OrderLayout] | type[ResponseLayout], message: str
) -> None:
    with pytest.raises(MappingError, match=message):
        load_mapping(name, kind)


ORDERS = """
imports = "orders"
source = "old"
[columns]
customer = "customer"
placed = "day"
amount = "amount"
"""
RESPONSES = """
imports = "responses"
source = "old"
kind = "reply"
[columns]
customer = "customer"
campaign = "campaign"
channel = "channel"
at = "day"
"""


@pytest.mark.parametrize(
    ("good", "change", "message"),
    [
        (ORDERS, ('placed = "day"', ""), r"columns\.placed: is missing"),
        (ORDERS, ("[columns]", "[file]\nnames = ['a']\nwidths = [1, 2]\n[columns]"), "as many"),
        (
            ORDERS,
            ("[columns]", "[file]\ndelimiter = 'whitespace'\nwidths = [1]\n[columns]"),
            "exclude each other",
        ),
        (ORDERS, ("[columns]", "[file]\nwidths = [0]\n[columns]"), r"file\.widths\.0"),
        (ORDERS, ("[columns]", "[fixes.colour]\na = 'b'\n[columns]"), r"fixes\.colour: no field"),
        (ORDERS, ("[columns]", "[amount]\nopening = 'price'\n[columns]"), r"amount\.opening"),
        (ORDERS, ("[columns]", "[customers]\nmissing = 'plan'\n[columns]"), r"customers\.missing"),
        (ORDERS, ("[columns]", "[campaigns]\nmissing = 'plan'\n[columns]"), "no such key"),
        (RESPONSES, ('kind = "reply"', ""), r"columns\.kind: is missing, and so is kind"),
        (RESPONSES, ('channel = "channel"', ""), r"columns\.channel: is missing"),
        (RESPONSES, ('kind = "reply"', 'kind = "reply"\nchannel = "A fair"'), "channel: "),
        (RESPONSES, ("[columns]", "[channels]\nx = 'A fair'\n[columns]"), r"channels\.x: "),
    ],
)
def test_what_is_wrong_with_one_of_facts(
    tmp_path: Path, good: str, change: tuple[str, str], message: str
) -> None:
    kind = OrderLayout if good is ORDERS else ResponseLayout
    path = tmp_path / "mapping.toml"
    path.write_text(good)
    load_mapping(str(path), kind)
    before, after = change
    assert before in good
    path.write_text(good.replace(before, after, 1))
    with pytest.raises(MappingError, match=message):
        load_mapping(str(path), kind)


def test_the_source_can_be_given() -> None:
    assert load_mapping("generic", source="other").source == "other"


def test_a_good_one(tmp_path: Path) -> None:
    load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('source = "old"', ""), "source: is missing"),
        (('source = "old"', 'source = " "'), "source: "),
        (('source = "old"', "source = 3"), "source: "),
        (('id = "id"', ""), r"columns\.id: is missing"),
        (('id = "id"', 'id = "id"\nown = "x"'), r"columns\.own: there is no such key"),
        (("[outcomes]", "[file]\ndates = '%d.%m'\n[outcomes]"), r"file\.dates: does not name"),
        (("[outcomes]", "[file]\nencoding = 'utf-16'\n[outcomes]"), r"file\.encoding: "),
        (("[outcomes]", "[file]\nencoding = 'none'\n[outcomes]"), r"file\.encoding: "),
        (("[outcomes]", "[file]\ndelimiter = ';;'\n[outcomes]"), r"file\.delimiter: "),
        (("[outcomes]", "[file]\ndecimal = ','\nthousands = ','\n[outcomes]"), "file: .*the same"),
        (("[outcomes]", "[amount]\ncurrency = 'XXZ'\n[outcomes]"), r"amount\.currency: is not"),
        (("[outcomes]", "[amount]\nopening = 'price'\n[outcomes]"), "prices: is missing"),
        (("[outcomes]", "[fixes.colour]\nx = 'y'\n[outcomes]"), r"fixes\.colour: no field"),
        (("[outcomes]", "[stages]\nnew = 'nowhere'\n[outcomes]"), r"stages\.new: the pipeline has"),
        (("[outcomes]", "[missing]\nopened = 'never'\n[outcomes]"), r"missing\.opened"),
        (('won = "won"', 'won = "perhaps"'), r"outcomes\.won: "),
        (('closed = "closed"', ""), r"columns\.closed: is missing"),
        (('account = "account"', ""), r"columns\.account: is missing"),
        (('amount = "amount"', ""), r"columns\.amount: is missing"),
        (('outcome = "outcome"', ""), r"columns\.outcome: is missing"),
        (
            ("[outcomes]", "[pipeline]\nname = 'p'\nstages = []\n[outcomes]"),
            r"pipeline\.stages: ",
        ),
        (
            (
                "[outcomes]",
                "[[pipeline.stages]]\nname = 'a'\nchance_to_next = '1.5'\nduration_months = '1'\n"
                "[outcomes]",
            ),
            r"pipeline\.name: is missing",
        ),
        (
            (
                "[outcomes]",
                "[pipeline]\nname = 'p'\n[[pipeline.stages]]\nname = 'a'\n"
                "chance_to_next = '1.5'\nduration_months = '1'\n[outcomes]",
            ),
            r"pipeline\.stages\.0\.chance_to_next: ",
        ),
        (("[outcomes]", "[outcomes"), "is not TOML"),
    ],
)
def test_what_is_wrong(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    before, after = change
    assert before in GOOD
    with pytest.raises(MappingError, match=message) as raised:
        load(tmp_path, GOOD.replace(before, after, 1))
    assert "\n" not in str(raised.value)


def test_no_such_mapping() -> None:
    with pytest.raises(MappingError, match="shipped mappings are crm_sales, generic"):
        load_mapping("salesforce")
