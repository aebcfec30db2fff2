from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import (
    CurrencyDiffers,
    Invalid,
    InvalidAttributes,
    InvalidChannel,
    InvalidMoney,
    InvalidProbability,
    InvalidText,
)
from domain.values import (
    CHANNELS,
    ExternalId,
    Money,
    Personal,
    checked_attributes,
    checked_channel,
    minor_units,
    optional_text,
    probability,
    stream_id,
    text,
)

currencies = st.sampled_from(["EUR", "JPY", "KWD", "CLF", "CNY"])
SUBJECT = UUID("44444444-4444-4444-8444-444444444444")


@st.composite
def money(draw: st.DrawFn) -> Money:
    currency = draw(currencies)
    units = draw(st.integers(0, 10**14))
    return Money.of(Decimal(units).scaleb(-minor_units(currency)), currency)


class TestMoney:
    @pytest.mark.parametrize(
        ("value", "currency", "written"),
        [
            ("500000", "CNY", "500000.00"),
            ("0", "EUR", "0.00"),
            (Decimal("-0"), "EUR", "0.00"),
            ("7", "JPY", "7"),
            ("7.0", "JPY", "7"),
            ("1.234", "KWD", "1.234"),
            (Decimal("1E+3"), "EUR", "1000.00"),
            ("999999999999999.99", "EUR", "999999999999999.99"),
        ],
    )
    def test_is_written_in_minor_units(self, value: str, currency: str, written: str) -> None:
        assert str(Money.of(value, currency).value) == written

    @pytest.mark.parametrize(
        "value",
        [
            *("NaN", "sNaN", "Infinity", "-Infinity", "-0.01", "1000000000000000", "0.001"),
            *("1E-1000000", "1E+1000000"),
        ],
    )
    def test_refuses_a_decimal_that_is_no_amount(self, value: str) -> None:
        with pytest.raises(InvalidMoney):
            Money.of(Decimal(value), "EUR")

    @pytest.mark.parametrize("value", ["", " 1", "1_000", "1e3", "\uff11", "NaN", "0x1", "1" * 99])
    def test_refuses_a_text_that_is_no_plain_number(self, value: str) -> None:
        with pytest.raises(InvalidMoney):
            Money.of(value, "EUR")

    @pytest.mark.parametrize("currency", ["", "eur", "XXX", "EURO", "XAU", "\x00"])
    def test_refuses_what_is_no_currency(self, currency: str) -> None:
        with pytest.raises(InvalidMoney):
            Money.of("1", currency)

    def test_adds_its_own_currency_only(self) -> None:
        assert Money.of("1", "EUR") + Money.of("2", "EUR") == Money.of("3", "EUR")
        with pytest.raises(CurrencyDiffers):
            Money.of("1", "EUR") + Money.of("2", "USD")

    def test_splits_by_largest_remainder(self) -> None:
        parts = Money.of("100", "EUR").split([1, 1, 1])
        assert [str(part.value) for part in parts] == ["33.34", "33.33", "33.33"]
        parts = Money.of("10", "JPY").split([Decimal("0.25"), Decimal("0.65"), Decimal("0.1")])
        assert [part.value for part in parts] == [3, 6, 1]

    @given(money(), st.lists(st.fractions(0, 1000), min_size=1, max_size=20))
    def test_parts_sum_to_the_whole_and_are_within_a_minor_unit(
        self, whole: Money, weights: list[Fraction]
    ) -> None:
        if not any(weights):
            weights[0] = Fraction(1)
        parts = whole.split(weights)
        assert sum(part.value for part in parts) == whole.value
        for part, weight in zip(parts, weights, strict=True):
            assert Money.of(part.value, part.currency) == part
            share = Fraction(whole.value) * weight / sum(weights)
            assert abs(Fraction(part.value) - share) < Fraction(whole.minor_unit())

    @pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [2, -1]])
    def test_refuses_weights_that_share_nothing(self, weights: list[int]) -> None:
        with pytest.raises(ValueError, match="weights"):
            Money.of("1", "EUR").split(weights)

    @given(st.decimals() | st.text(), currencies | st.text())
    def test_is_good_or_invalid(self, value: Decimal | str, currency: str) -> None:
        try:
            good = Money.of(value, currency)
        except Invalid:
            return
        assert good.value == Decimal(value)


class TestText:
    @pytest.mark.parametrize("value", [None, "", " \t\n", "a\x00b", "\ud800", "x" * 201])
    def test_refuses_what_is_no_name(self, value: str | None) -> None:
        with pytest.raises(InvalidText):
            text(value, "name")

    def test_takes_any_language(self) -> None:
        assert text("客户 🙂", "name") == "客户 🙂"

    def test_blank_is_absent_where_optional(self) -> None:
        assert optional_text("  ", "region") is None
        with pytest.raises(InvalidText):
            optional_text("\udfff", "region")

    @pytest.mark.parametrize("value", [*CHANNELS, "trade-fair", "x" * 50])
    def test_a_channel_is_a_slug(self, value: str) -> None:
        assert checked_channel(value) == value

    @pytest.mark.parametrize("value", ["", "Web", "web ", "x" * 51, "-web", "网", "web\n"])
    def test_refuses_other_channels(self, value: str) -> None:
        with pytest.raises(InvalidChannel):
            checked_channel(value)


@pytest.mark.parametrize("value", ["0", "1", "0.123456789012"])
def test_a_probability_is_between_0_and_1(value: str) -> None:
    assert probability(Decimal(value)) == Decimal(value)


@pytest.mark.parametrize("value", ["-0.1", "1.1", "NaN", "Infinity", "0.1234567890123"])
def test_refuses_what_is_no_probability(value: str) -> None:
    with pytest.raises(InvalidProbability):
        probability(Decimal(value))


@pytest.mark.parametrize(
    "values",
    [
        {str(i): 1 for i in range(101)},
        {"": 1},
        {"k" * 101: 1},
        {"a\x00": 1},
        {"a": "x" * 1001},
        {"a": "\x00"},
        {"a": 2**63},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": {"_type_": "x"}},
    ],
)
def test_refuses_attributes_out_of_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidAttributes):
        checked_attributes(values)


@given(*[st.text(max_size=5)] * 4)
def test_stream_ids_of_two_names_differ(a: str, b: str, c: str, d: str) -> None:
    same = stream_id("customer", ExternalId(a, b)) == stream_id("customer", ExternalId(c, d))
    assert same == ((a, b) == (c, d))


def test_stream_ids_never_change() -> None:
    known = stream_id("customer", ExternalId("crm", "42"))
    assert known == UUID("a6bc9855-0929-57bc-a183-374abb3fa890")
    assert known != stream_id("campaign", ExternalId("crm", "42"))


def test_personal_text_does_not_show() -> None:
    name = Personal(SUBJECT, "Li Wei", sealed="token")
    assert "Li Wei" not in f"{name} {name!r}"
    assert name == Personal(SUBJECT, "Li Wei")
    assert hash(name) == hash(Personal(SUBJECT, "Li Wei"))
    assert name != Personal(SUBJECT, None)
