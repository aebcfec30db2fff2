"""Attribution's projection: its folds, and its views for BI."""

from __future__ import annotations

from domain.definitions import AttributionDefinition
from projections.attribution.campaigns import CAMPAIGN, CampaignFold
from projections.attribution.credits import CREDIT, CreditFold
from projections.attribution.models import RULES
from projections.projection import PERIOD_COMMENTS, Projection, View
from projections.reading import NEWEST

_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"
_COST = """(SELECT coalesce(sum(fact.amount), 0) FROM campaign_fact AS fact
    WHERE fact.campaign_id = row.campaign_id AND fact.kind = 'cost-booked')"""
_CAMPAIGN = {"campaign_id": "The campaign.", **{c.name: c.comment for c in CAMPAIGN}}
_MODEL = f"Rule model: {', '.join(RULES)}."
_CREDIT = {
    "customer_id": "The customer.",
    "deal_id": "The won deal.",
    "model": _MODEL,
    "touch": "Position of the touch in the log; 0: unattributed.",
    **{c.name: c.comment for c in CREDIT if c.name not in RULES},
    "credit": "Share of the contract's amount; all of a deal and model sum to it.",
}
_BY_MODEL = ", ".join(f"('{model}', {model})" for model in RULES)
_CREDITS = f"""credit_period CROSS JOIN LATERAL (VALUES {_BY_MODEL}) AS share(model, credit)"""


class AttributionProjection(Projection):
    """Touches, credits and campaigns. Under another definition it is another one, by its id."""

    name = "attribution"
    version = 2
    views = (
        View(
            "dim_campaign",
            "Campaigns as they are now.",
            {**_CAMPAIGN, "cost": "What was booked, in the same currency."},
            f"""SELECT {", ".join("row." + name for name in _CAMPAIGN)}, {_COST}
                FROM campaign_period AS row WHERE {_OPEN}""",
        ),
        View(
            "campaign_history",
            "States of campaigns over both times.",
            {**_CAMPAIGN, **PERIOD_COMMENTS},
            f"SELECT {', '.join((*_CAMPAIGN, *PERIOD_COMMENTS))} FROM campaign_period",
        ),
        View(
            "campaign_cost",
            "Every cost of a campaign.",
            {
                "campaign_id": "The campaign.",
                "occurred_at": "When it was true.",
                "position": "Position of the event in the log.",
                "amount": "The cost.",
                "currency": "Currency of the cost.",
                "reference": "What it was booked for.",
            },
            """SELECT campaign_id, occurred_at, position, amount, currency, reference
                FROM campaign_fact WHERE kind = 'cost-booked'""",
        ),
        View(
            "fact_touch",
            "Touches: responses of customers, and openings of deals from a campaign.",
            {
                "touch": "Position of the event in the log: the touch's key.",
                "customer_id": "The customer.",
                "campaign_id": "The campaign.",
                "occurred_at": "When it happened.",
                "kind": "campaign-responded or opened.",
                "deal_id": "The deal that was opened; null: a response.",
                "channel": "Channel of a response.",
                "response": "Kind of a response.",
            },
            """SELECT position, customer_id, campaign_id, occurred_at, kind, deal_id, channel,
                response FROM touch_fact WHERE campaign_id IS NOT NULL""",
        ),
        View(
            "fact_credit",
            "Credits of won deals by rule model, as they are now; key: deal, model and touch.",
            _CREDIT,
            f"SELECT {', '.join(_CREDIT)} FROM {_CREDITS} WHERE {_OPEN}",
        ),
        View(
            "credit_history",
            "Credits of won deals over both times.",
            {**_CREDIT, **PERIOD_COMMENTS},
            f"SELECT {', '.join((*_CREDIT, *PERIOD_COMMENTS))} FROM {_CREDITS}",
        ),
        View(
            "campaign_credit",
            "Credits by campaign, model and currency, now; a model's sum to the won revenue.",
            {
                "campaign_id": "The campaign; null: unattributed.",
                "model": _MODEL,
                "currency": "Currency of the credit.",
                "deals": "Won deals that it touched.",
                "credit": "Sum of the credits.",
            },
            f"""SELECT campaign_id, model, currency, count(DISTINCT deal_id), sum(credit)
                FROM {_CREDITS} WHERE {_OPEN} GROUP BY campaign_id, model, currency""",
        ),
        View(
            "campaign_plan",
            "Planned budget and booked cost per year, without rejected and cancelled campaigns.",
            {
                "year": "Year the campaigns start in.",
                "currency": "Currency of the amounts.",
                "campaigns": "Number of campaigns.",
                "budget": "Sum of the budgets.",
                "cost": "Sum of the booked costs.",
            },
            f"""SELECT extract(year FROM starts_on)::int, currency, count(*), sum(budget),
                sum({_COST})
                FROM campaign_period AS row
                WHERE {_OPEN} AND status NOT IN ('rejected', 'cancelled') GROUP BY 1, 2""",
        ),
    )

    def __init__(self, definition: AttributionDefinition | None = None) -> None:
        self.definition = definition or AttributionDefinition()
        self.folds = (CreditFold(self.definition), CampaignFold())

    @property
    def id(self) -> str:
        """Name and version; under a definition that is not the built-in, with that one's id."""
        if self.definition == AttributionDefinition():
            return super().id
        return f"{super().id}:{self.definition.id}"
