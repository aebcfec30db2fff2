"""Random histories of one customer as facts of the fold, recorded in any order of time."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

from projections.attribution.credits import AMOUNT, CURRENCY, DEAL, KIND, CreditFold
from projections.attribution.models import RULES
from projections.projection import NULL, Changes, Fact, KeyState, Row, instant
from tests.integration.projections.story import START, named

CUSTOMER = named("customer")
CAMPAIGNS = [str(named(f"campaign {number}")) for number in range(4)]
DEALS = [str(named(f"deal {number}")) for number in range(4)]
_KINDS = ("campaign-responded",) * 6 + ("opened",) * 3 + ("contract-signed",) * 4
_KINDS += ("lost", "order-placed", "churned")
_FIRST = 6  # place of the first model's credit among a row's values


def random_facts(random: Random, length: int) -> list[Fact]:
    """In the order of recording. Days are whole, so that equal instants are common; four in ten
    facts are back-dated, by up to 120 days."""
    facts: list[Fact] = []
    today = 0
    for position in range(1, length + 1):
        today += random.choice([0, 0, 1, 5, 30])
        back = random.randint(0, 120) if random.random() < 0.4 else 0
        at = instant(START + timedelta(days=max(today - back, 0)))
        facts.append((at, position, *_columns(random)))
    return facts


def _columns(random: Random) -> tuple[str, ...]:
    kind, deal = random.choice(_KINDS), random.choice(DEALS)
    campaign = random.choice(CAMPAIGNS)
    match kind:
        case "campaign-responded":
            return (kind, campaign, NULL, "web", "click", NULL, NULL, NULL)
        case "opened":
            return (kind, random.choice([NULL, campaign]), deal, *(NULL,) * 5)
        case "contract-signed":
            currency = random.choice(["CNY", "JPY", "KWD"])
            units = random.choice([0, 1, 2, 7, random.randint(0, 10**12)])
            amount = Decimal(units).scaleb(-{"CNY": 2, "JPY": 0, "KWD": 3}[currency])
            return (kind, NULL, deal, NULL, NULL, str(amount), currency, "2024-01-01")
        case "lost":
            return (kind, NULL, deal, *(NULL,) * 5)
    return (kind, *(NULL,) * 7)


def check_sums(fold: CreditFold, facts: list[Fact]) -> int:
    """After every fact, each deal that was won then has credits that sum to its contract under
    each model; how many such sums were looked at."""
    state, changes = KeyState(fold, CUSTOMER), Changes()
    sums = 0
    for number, fact in enumerate(facts, 1):
        state.apply(fact, changes)
        sums += _check(won(facts[:number]), [entry.row for entry in state.rows()])
    return sums


def won(facts: list[Fact]) -> dict[str, tuple[Decimal, str]]:
    """Amount and currency of each deal's first contract, in the order of time."""
    found: dict[str, tuple[Decimal, str]] = {}
    for fact in sorted(facts):
        if fact[KIND] == "contract-signed":
            found.setdefault(fact[DEAL], (Decimal(fact[AMOUNT]), fact[CURRENCY]))
    return found


def _check(expected: dict[str, tuple[Decimal, str]], rows: list[Row]) -> int:
    sums: dict[str, list[Decimal]] = {}
    currencies = {}
    for row in rows:
        deal, touch = row[1].split("\t")
        values = row[4].split("\t")
        assert (touch == "0") == (values[0] == NULL)
        currencies[deal] = values[4]
        own = sums.setdefault(deal, [Decimal(0)] * len(RULES))
        for place, credit in enumerate(values[_FIRST:]):
            assert Decimal(credit) >= 0
            own[place] += Decimal(credit)
    assert sums == {deal: [amount] * len(RULES) for deal, (amount, _) in expected.items()}
    assert currencies == {deal: currency for deal, (_, currency) in expected.items()}
    return len(expected) * len(RULES)
