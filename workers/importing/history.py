"""What the log has of a deal already, beside what the file says now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from domain.aggregate import LedgerAggregate
from domain.customer import Customer
from domain.opportunity import Opportunity
from workers.importing.plan import Plan
from workers.steps import Step


@dataclass(slots=True)
class History:
    """The facts of a deal that an import may have recorded."""

    opened: Opportunity.Created
    entered: set[str] = field(default_factory=set)
    """Stages it has ever been in."""
    outcome: Opportunity.ContractSigned | Opportunity.Lost | None = None

    @classmethod
    def of(cls, events: Iterable[LedgerAggregate.Event]) -> History | None:
        """None of what is no deal."""
        found: History | None = None
        for event in events:
            match event:
                case Opportunity.Created():
                    found = cls(event, {event.stage})
                case Opportunity.StageAdvanced() | Opportunity.StageMovedBack() if found:
                    found.entered.add(event.to_stage)
                case Opportunity.ContractSigned() | Opportunity.Lost() if found:
                    found.outcome = event
                case _:
                    continue
        return found

    def differences(
        self, plan: Plan, opened: datetime | None, closed: datetime | None
    ) -> Iterator[str]:
        """What the line says otherwise than was recorded; `opened` None: not to be compared."""
        deal, known = plan.deal, self.opened
        if known.customer_id != plan.customer_id:
            yield "account: another customer here"
        yield from _differs("name", known.name, deal.name)
        yield from _differs("amount", known.amount, deal.amount)
        yield from _differs("owner", known.owner, plan.owner)
        yield from _differs("expected_close", known.expected_close, deal.expected_close)
        if opened is not None:
            yield from _differs("opened", known.timestamp, opened)
        match self.outcome:
            case Opportunity.ContractSigned() as won if deal.outcome == "won":
                yield from _differs("amount", won.amount, deal.contract)
                yield from _differs("closed", won.signed_on, deal.closed)
            case Opportunity.Lost() as lost if deal.outcome == "lost":
                yield from _differs("loss_cause", lost.cause, deal.cause)
                yield from _differs("competitor", lost.competitor, deal.competitor)
                yield from _differs("closed", lost.timestamp, closed)
            case None:
                return
            case other if deal.outcome is not None:
                here = "won" if isinstance(other, Opportunity.ContractSigned) else "lost"
                yield from _differs("outcome", here, deal.outcome)


def customer_differences(events: Iterable[LedgerAggregate.Event], step: Step) -> list[str]:
    """What the files say of a customer otherwise than at its registration."""
    for event in events:
        if isinstance(event, Customer.Created):
            wanted = step.arguments
            return [
                difference
                for field_ in ("industry", "region", "attributes")
                for difference in _differs(field_, getattr(event, field_), wanted.get(field_))
            ]
    return ["the id is of something else here"]


def _differs(name: str, here: object, there: object) -> Iterator[str]:
    if here != there:
        yield f"{name}: {_shown(here)} here, {_shown(there)} in the file"


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return "nothing" if value is None else str(value)[:80]
