"""What the views of `bi` promise beyond their rows: unique keys, and references that are whole.

Reports rely on it, the dbt sources are written from it, and the tests hold the views to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PERIOD = ("valid_from", "known_from")

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "dim_campaign": ("campaign_id",),
    "dim_customer": ("customer_id",),
    "dim_date": ("date",),
    "dim_owner": ("owner",),
    "dim_person": ("person_id",),
    "dim_stage": ("stage_key",),
    "fact_contract": ("deal_id",),
    "fact_credit": ("deal_id", "model", "touch"),
    "fact_delivery": ("delivery_key",),
    "fact_lifecycle_period": ("customer_id", "classification", "entered_at"),
    "fact_order": ("order_key",),
    "fact_stage_visit": ("deal_id", "visit"),
    "fact_touch": ("touch",),
    "campaign_cost": ("position",),
    "campaign_credit": ("campaign_id", "model", "currency"),
    "campaign_history": ("campaign_id", *_PERIOD),
    "campaign_plan": ("year", "currency"),
    "credit_history": ("deal_id", "model", "touch", *_PERIOD),
    "customer": ("customer_id",),
    "customer_history": ("customer_id", *_PERIOD),
    "customer_standing": ("customer_id", "classification"),
    "customer_standing_history": ("customer_id", "classification", *_PERIOD),
    "deal": ("deal_id",),
    "deal_event": ("position",),
    "deal_history": ("deal_id", *_PERIOD),
    "exchange_rate": ("from_currency", "to_currency", "on_date"),
    "freshness": ("read_model",),
    "funnel": ("pipeline_id", "stage", "currency"),
    "lifecycle_distribution": ("classification", "value"),
    "lifecycle_move": ("customer_id", "classification", "moved_at"),
    "owner_history": ("owner", *_PERIOD),
    "pipeline_stage": ("pipeline_id", "revision", "ordinal"),
    "stage_visit": ("deal_id", "visit"),
    "win_rate_by_competitor": ("competitor",),
}
"""View → the columns that tell its rows apart."""

NULLABLE: Final = frozenset({("campaign_credit", "campaign_id")})
"""Columns of keys that may be null, which counts as a value like others."""

_CUSTOMER = ("dim_customer", "customer_id")
_CAMPAIGN = ("dim_campaign", "campaign_id")
_DEAL = ("deal", "deal_id")
_OWNER = ("dim_owner", "owner")

REFERENCES: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("dim_person", "customer_id"): _CUSTOMER,
    ("fact_contract", "customer_id"): _CUSTOMER,
    ("fact_contract", "deal_id"): _DEAL,
    ("fact_credit", "campaign_id"): _CAMPAIGN,
    ("fact_credit", "customer_id"): _CUSTOMER,
    ("fact_credit", "deal_id"): ("fact_contract", "deal_id"),
    ("fact_delivery", "customer_id"): _CUSTOMER,
    ("fact_lifecycle_period", "customer_id"): _CUSTOMER,
    ("fact_order", "customer_id"): _CUSTOMER,
    ("fact_stage_visit", "customer_id"): _CUSTOMER,
    ("fact_stage_visit", "deal_id"): _DEAL,
    ("fact_stage_visit", "stage_key"): ("dim_stage", "stage_key"),
    ("fact_touch", "campaign_id"): _CAMPAIGN,
    ("fact_touch", "customer_id"): _CUSTOMER,
    ("fact_touch", "deal_id"): _DEAL,
    ("campaign_cost", "campaign_id"): _CAMPAIGN,
    ("campaign_credit", "campaign_id"): _CAMPAIGN,
    ("campaign_history", "campaign_id"): _CAMPAIGN,
    ("credit_history", "campaign_id"): _CAMPAIGN,
    ("credit_history", "customer_id"): _CUSTOMER,
    ("credit_history", "deal_id"): _DEAL,
    ("customer", "customer_id"): _CUSTOMER,
    ("customer_history", "customer_id"): _CUSTOMER,
    ("customer_standing", "customer_id"): _CUSTOMER,
    ("customer_standing_history", "customer_id"): _CUSTOMER,
    ("deal", "campaign_id"): _CAMPAIGN,
    ("deal", "customer_id"): _CUSTOMER,
    ("deal", "owner"): _OWNER,
    ("deal_event", "campaign_id"): _CAMPAIGN,
    ("deal_event", "customer_id"): _CUSTOMER,
    ("deal_event", "deal_id"): _DEAL,
    ("deal_event", "owner"): _OWNER,
    ("deal_history", "campaign_id"): _CAMPAIGN,
    ("deal_history", "customer_id"): _CUSTOMER,
    ("deal_history", "deal_id"): _DEAL,
    ("deal_history", "owner"): _OWNER,
    ("lifecycle_move", "customer_id"): _CUSTOMER,
    ("owner_history", "owner"): _OWNER,
    ("stage_visit", "deal_id"): _DEAL,
}
"""(view, column) → the (view, column) in which each of its values stands once; null refers to
nothing."""
