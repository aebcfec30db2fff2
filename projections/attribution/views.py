"""Attribution's projection: its folds, and its views for BI."""

from __future__ import annotations

from projections.attribution.campaigns import CAMPAIGN, CampaignFold
from projections.attribution.credits import CreditFold
from projections.projection import PERIOD_COMMENTS, Projection, View
from projections.reading import NEWEST

_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"
_COST = """(SELECT coalesce(sum(fact.amount), 0) FROM campaign_fact AS fact
    WHERE fact.campaign_id = row.campaign_id AND fact.kind = 'cost-booked')"""
_CAMPAIGN = {"campaign_id": "The campaign.", **{c.name: c.comment for c in CAMPAIGN}}
_CREDIT = {
    "customer_id": "The customer.",
    "deal_id": "The won deal.",
    "model": "first, last or linear.",
    "touch": "Position of the touch in the log; 0: unattributed.",
    "campaign_id": "The campaign; null: unattributed.",
    "credit": "Share of the contract's amount.",
    "currency": "Currency of the credit.",
    "won_on": "Day the contract was signed.",
    "touched_at": "When the touch happened; null: unattributed.",
}


class AttributionProjection(Projection):
    """Touches, credits and campaigns."""

    name = "attribution"
    version = 1
    folds = (CreditFold(), CampaignFold())
    views = (
        View(
            "campaign",
            "Campaigns as they are now.",
            {**_CAMPAIGN, "cost": "What was booked."},
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
            "touch",
            "Touches: responses of customers, and openings of deals from a campaign.",
            {
                "customer_id": "The customer.",
                "occurred_at": "When it happened.",
                "position": "Position of the event in the log.",
                "kind": "campaign-responded or opened.",
                "campaign_id": "The campaign.",
                "deal_id": "The deal that was opened.",
                "channel": "Channel of a response.",
                "response": "Kind of a response.",
            },
            """SELECT customer_id, occurred_at, position, kind, campaign_id, deal_id, channel,
                response FROM touch_fact WHERE kind <> 'contract-signed'""",
        ),
        View(
            "credit",
            "Credits of won deals, as they are now.",
            _CREDIT,
            f"SELECT {', '.join(_CREDIT)} FROM credit_period WHERE {_OPEN}",
        ),
        View(
            "credit_history",
            "Credits of won deals over both times.",
            {**_CREDIT, **PERIOD_COMMENTS},
            f"SELECT {', '.join((*_CREDIT, *PERIOD_COMMENTS))} FROM credit_period",
        ),
        View(
            "campaign_credit",
            "Credits by campaign, model and currency, now; they sum to the won revenue.",
            {
                "campaign_id": "The campaign; null: unattributed.",
                "model": "first, last or linear.",
                "currency": "Currency of the credit.",
                "deals": "Won deals with a share for it.",
                "credit": "Sum of the credits.",
            },
            f"""SELECT campaign_id, model, currency, count(DISTINCT deal_id), sum(credit)
                FROM credit_period WHERE {_OPEN} GROUP BY campaign_id, model, currency""",
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
