"""What happened to the open amount between two moments, deal by deal from the raw events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from domain.opportunity import Opportunity
from infra.eventstore.feed import Recorded
from projections import funnel
from projections.reading import Moment
from tests.integration.projections.oracle.histories import PIPELINES

if TYPE_CHECKING:
    from tests.integration.projections.oracle.comparing import Comparer

IN = ("new", "reopened", "raised", "moved_in")
OUT = ("lowered", "moved_out", "suspended", "won", "lost", "terminated")
Step = tuple[int, int, Decimal]
"""Times, deals, amount."""
Window = tuple[date | None, date | None]


@dataclass(frozen=True)
class _State:
    pipeline: UUID
    currency: str
    status: str
    amount: Decimal
    close: date | None

    def inside(self, window: Window) -> bool:
        """Whether it is expected to close in [from, to), if that is asked."""
        since, until = window
        if since is None and until is None:
            return True
        if self.close is None:
            return False
        return (since is None or self.close >= since) and (until is None or self.close < until)


def states(known: Iterable[Recorded]) -> list[list[tuple[datetime, _State]]]:
    """Of each deal, what it was from an instant on, all events of the instant having happened."""
    found: dict[UUID, list[tuple[datetime, _State]]] = defaultdict(list)
    for event in sorted(known, key=lambda each: (each.occurred_at, each.position)):
        e, own = event.event, found[event.stream_id]
        if isinstance(e, Opportunity.Created):
            now = _State(e.pipeline_id, e.amount.currency, "open", e.amount.value, e.expected_close)
        elif own:
            now = _after(own[-1][1], e)
        else:
            continue
        if own and own[-1][0] == event.occurred_at:
            own.pop()
        own.append((event.occurred_at, now))
    return [one for one in found.values() if one]


def _after(now: _State, e: object) -> _State:
    match e:
        case Opportunity.AmountChanged():
            return replace(now, amount=e.amount.value)
        case Opportunity.ExpectedCloseChanged():
            return replace(now, close=e.expected_close)
        case Opportunity.Suspended() if now.status == "open":
            return replace(now, status="suspended")
        case Opportunity.Resumed() if now.status == "suspended":
            return replace(now, status="open")
    if now.status not in ("open", "suspended"):
        return now
    match e:
        case Opportunity.ContractSigned():
            return replace(now, status="won")
        case Opportunity.Lost():
            return replace(now, status="lost")
        case Opportunity.Terminated():
            return replace(now, status="terminated")
    return now


def steps(
    deals: Sequence[list[tuple[datetime, _State]]],
    pipeline: UUID | None,
    currency: str,
    start: datetime,
    end: datetime,
    window: Window,
) -> dict[str, Step]:
    """Of the changes in (start, end]; and `opening` as of `start`, `closing` as of `end`."""
    found: dict[str, Step] = dict.fromkeys(("opening", *IN, *OUT, "closing"), (0, 0, Decimal(0)))

    def add(kind: str, deals: int, amount: Decimal) -> None:
        times, there, sum_ = found[kind]
        found[kind] = times + 1, there + deals, sum_ + amount

    for deal in deals:
        first = deal[0][1]
        if first.currency != currency or pipeline not in (None, first.pipeline):
            continue
        before: _State | None = None
        for at, now in deal:
            if at > end:
                break
            if at > start:
                _step(add, before, now, window)
            before = now
        for kind, moment in (("opening", start), ("closing", end)):
            then = [state for at, state in deal if at <= moment]
            if then and then[-1].status == "open" and then[-1].inside(window):
                add(kind, 1, then[-1].amount)
    return found


def _step(add: object, before: _State | None, now: _State, window: Window) -> None:
    assert callable(add)
    was = before is not None and before.status == "open" and before.inside(window)
    is_now = now.status == "open" and now.inside(window)
    if before is None:
        if is_now:
            add("new", 1, now.amount)
        elif now.status in ("won", "lost", "terminated") and now.inside(window):
            add("new", 1, now.amount)  # ended as it was opened
            add(now.status, -1, -now.amount)
    elif was and is_now:
        if now.amount != before.amount:
            change = now.amount - before.amount
            add("raised" if change > 0 else "lowered", 0, change)
    elif is_now:
        add("reopened" if before.status == "suspended" else "moved_in", 1, now.amount)
    elif was:
        add("moved_out" if now.status == "open" else now.status, -1, -before.amount)


def ask(
    asker: Comparer, moment: Moment, known: Sequence[Recorded], start: datetime, end: datetime
) -> None:
    """Of each pipeline and of all, without and with a window of expected closes."""
    deals = states(known)
    defined = any(event.stream_id == PIPELINES[0] for event in known)
    middle = (start + (end - start) / 2).date()
    windows: tuple[Window, ...] = (
        (None, None), (start.date(), end.date()), (middle, None), (None, middle),
    )  # fmt: skip
    for pipeline in (None, PIPELINES[0]):
        for window in windows:
            found = asker.models.ask(
                funnel.waterfall, moment, start=start, end=end, pipeline_id=pipeline,
                currency="CNY", close_from=window[0], close_to=window[1],
            )  # fmt: skip
            what = f"waterfall of {pipeline} from {start} to {end}, closing in {window}"
            if found is None:
                asker.same(what, moment, defined, False)
                continue
            parts = (found.opening, *found.changes, found.closing)
            shown = {one.kind: (one.times, one.deals, one.amount) for one in parts}
            asker.same(what, moment, shown, steps(deals, pipeline, "CNY", start, end, window))
            identity(asker, what, moment, shown)
            for kind, (times, _, _) in shown.items():
                asker.tell(f"waterfall {kind}", times)


def identity(asker: Comparer, what: str, moment: Moment, shown: dict[str, Step]) -> None:
    """open₀ + new + reopened + raised + moved in − lowered − moved out − suspended − won − lost −
    terminated = open₁, deals and amounts, to the last digit."""
    for place in (1, 2):
        come = sum((shown[kind][place] for kind in IN), Decimal(0))
        gone = -sum((shown[kind][place] for kind in OUT), Decimal(0))
        assert come >= 0
        assert gone >= 0
        closing = shown["opening"][place] + come - gone
        asker.same(f"sum of {what}", moment, closing, shown["closing"][place])
