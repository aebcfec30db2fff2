"""The lifecycle's projection: its folds, and its views for BI."""

from __future__ import annotations

from projections.lifecycle.demand import DemandFold
from projections.lifecycle.keeping import RetentionFold
from projections.lifecycle.standings import StandingFold
from projections.projection import PERIOD_COMMENTS, Projection, View
from projections.reading import NEWEST

_CLASSIFICATION = "type, path, identification or level."
_CAUSE = "Of lost: why; silence is a passive loss, all others are active."
_RULE = "The rule that decided, with its version; null: somebody told it."
_EVIDENCE = "What the rule rests on, as JSON."
_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"
_MARGIN = "Amount − cost; null: the cost is not known."


class LifecycleProjection(Projection):
    """Type, path, identification and level of every customer; purchases, demand, retention."""

    name = "lifecycle"
    version = 3
    folds = (StandingFold(), DemandFold(), RetentionFold())
    views = (
        View(
            "customer_standing",
            "Where customers stand now.",
            {
                "customer_id": "The customer.",
                "classification": _CLASSIFICATION,
                "value": "The value.",
                "since": "Since when.",
                "cause": _CAUSE,
                "rule": _RULE,
                "evidence": _EVIDENCE,
            },
            f"""SELECT customer_id, classification, value, valid_from, cause, rule, evidence
                FROM standing_period WHERE {_OPEN}""",
        ),
        View(
            "customer_standing_history",
            "Where customers stood, over both times.",
            {
                "customer_id": "The customer.",
                "classification": _CLASSIFICATION,
                "value": "The value.",
                "cause": _CAUSE,
                "rule": _RULE,
                "evidence": _EVIDENCE,
                **PERIOD_COMMENTS,
            },
            """SELECT customer_id, classification, value, cause, rule, evidence, valid_from,
                valid_to, known_from, known_to FROM standing_period""",
        ),
        View(
            "lifecycle_distribution",
            "How many customers stand where, now.",
            {
                "classification": _CLASSIFICATION,
                "value": "The value.",
                "customers": "Number of customers.",
            },
            f"""SELECT classification, value, count(*) FROM standing_period
                WHERE {_OPEN} GROUP BY classification, value""",
        ),
        View(
            "lifecycle_move",
            "Every move of a customer from value to value, as known now.",
            {
                "customer_id": "The customer.",
                "classification": _CLASSIFICATION,
                "from_value": "The value left.",
                "to_value": "The value entered.",
                "moved_at": "When.",
                "days": "Days spent in the value left.",
                "cause": "Of a move to lost: why; silence: passively.",
                "rule": _RULE,
            },
            f"""SELECT old.customer_id, old.classification, old.value, new.value, old.valid_to,
                round(extract(epoch FROM old.valid_to - old.valid_from) / 86400, 6), new.cause,
                new.rule
                FROM standing_period AS old JOIN standing_period AS new
                ON new.customer_id = old.customer_id AND new.classification = old.classification
                AND new.valid_from = old.valid_to AND new.known_to = {NEWEST}
                WHERE old.known_to = {NEWEST}""",
        ),
        View(
            "fact_lifecycle_period",
            "One row per stay of a customer in a value of a classification, as known now. Key:"
            " customer_id, classification, entered_at.",
            {
                "customer_id": "The customer.",
                "classification": _CLASSIFICATION,
                "value": "The value.",
                "entered_at": "When the stay began.",
                "left_at": "When it ended; null while it lasts.",
                "days": "Days that it lasted; null while it lasts.",
                "cause": _CAUSE,
                "rule": _RULE,
                "event_position": "Position in the log of the event that opened it.",
            },
            f"""SELECT customer_id, classification, value, valid_from,
                CASE WHEN valid_to <> 'infinity' THEN valid_to END,
                CASE WHEN valid_to <> 'infinity'
                THEN round(extract(epoch FROM valid_to - valid_from) / 86400, 6) END,
                cause, rule, event FROM standing_period WHERE known_to = {NEWEST}""",
        ),
        View(
            "fact_order",
            "One row per order, as known now. Key: order_key.",
            {
                "order_key": "Position in the log of the event that placed it.",
                "customer_id": "The customer.",
                "order_id": "Id of the order; unique within the customer.",
                "ordered_at": "When it was placed.",
                "ordered_on": "Day on which it was placed, in UTC.",
                "amount": "What the customer pays.",
                "cost": "What it costs us; null: not known.",
                "margin": _MARGIN,
                "currency": "Currency of the amounts.",
            },
            f"""SELECT position, customer_id, reference, valid_from,
                (valid_from AT TIME ZONE 'UTC')::date, amount, cost, amount - cost, currency
                FROM purchase_period WHERE kind = 'order' AND known_to = {NEWEST}""",
        ),
        View(
            "fact_delivery",
            "One row per delivery. Key: delivery_key.",
            {
                "delivery_key": "Position in the log of the event that recorded it.",
                "customer_id": "The customer.",
                "delivery_id": "Id of the delivery; unique within the customer.",
                "order_id": "Id of the order, or of the deal whose contract it fulfils, as it was"
                " told; null: it was not.",
                "delivered_at": "When it came to the customer.",
                "delivered_on": "Day on which it came, in UTC.",
            },
            """SELECT position, customer_id, delivery_id, reference, occurred_at,
                (occurred_at AT TIME ZONE 'UTC')::date
                FROM standing_fact WHERE kind = 'delivered'""",
        ),
        View(
            "fact_contract",
            "One row per deal won by a signed contract, as known now. Key: deal_id.",
            {
                "deal_id": "The deal.",
                "customer_id": "The customer.",
                "signed_at": "When the deal was won.",
                "signed_on": "Day on which the contract was signed.",
                "amount": "What the customer pays.",
                "cost": "What it costs us; null: not known.",
                "margin": _MARGIN,
                "currency": "Currency of the amounts.",
            },
            f"""SELECT deal_id, customer_id, valid_from, signed_on, amount, cost, amount - cost,
                currency FROM purchase_period WHERE kind = 'contract' AND known_to = {NEWEST}""",
        ),
    )
