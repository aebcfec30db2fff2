"""First events and values that the tests of the domain share."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID
from domain.values import CustomerKind, Money
from tests.given_when_then import Fact, fact

CUSTOMER = UUID("22222222-2222-4222-8222-222222222222")
CAMPAIGN = UUID("33333333-3333-4333-8333-333333333333")

Stream = tuple[Fact, ...]


def eur(value: str) -> Money:
    return Money.of(value, "EUR")


def opened_deal(**changes: Any) -> Fact:
    fields: dict[str, Any] = {
        "customer_id": CUSTOMER,
        "name": "new press",
        "amount": eur("1000"),
        "pipeline_id": DEFAULT_PIPELINE_ID,
        "pipeline_revision": 1,
        "stage": "prospect",
        "expected_close": None,
        "owner": "ann",
        "campaign_id": None,
        "referred_by": None,
        "external_id": None,
    }
    return fact(Opportunity.Created, **{**fields, **changes})


def registered(**changes: Any) -> Fact:
    fields: dict[str, Any] = {
        "kind": CustomerKind.COMPANY,
        "name": "Acme",
        "personal_name": None,
        "identified": True,
        "region": "north",
        "industry": None,
        "source": None,
        "external_id": None,
        "attributes": {"size": 5},
    }
    return fact(Customer.Created, **{**fields, **changes})
