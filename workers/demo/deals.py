"""One deal: through the stages of the default pipeline to an outcome, and what follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from math import log2
from random import Random
from typing import Any, Final
from uuid import UUID

from domain.pipeline import DEFAULT_STAGES, chances_to_win
from domain.values import Money
from workers.demo.names import ACTIVITIES, COMPETITORS, LOSSES, PRODUCTS, REVIEWS
from workers.demo.script import Script

_DAYS_A_MONTH: Final = 30.4
_COURSE: Final = {
    "prospect": (0.40, 52.0),
    "bid": (0.74, 49.0),
    "negotiation": (0.92, 33.0),
    "contract": (0.98, 9.0),
}
"""By stage: how many pass it, and about how many days they take. Not what the pipeline's definition
says, as it is in life: of prospects fewer go on, and bids take longer."""
_INVITED: Final = 0.12
"""What a campaign adds to the chance of a prospect that came by it."""
_LINGERS: Final = 1.4
"""So many times as long does a deal stay where it is lost in the end."""
_AVERAGE: Final = 100.0
"""An average amount, in thousands; a deal that is twice as large takes a fifth longer."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What a deal starts from."""

    id: str
    customer_id: UUID
    customer_name: str
    owner: str
    successor: str
    opened: float
    margin: float
    """About what is left of a contract's amount when our cost is paid, as a part of it."""
    currency: str | None = None
    """The customer's, if it is not ours."""
    product: str | None = None
    campaign_id: UUID | None = None
    referred_by: str | None = None
    won: bool = False
    """Whether it is to be won; else chance decides."""


@dataclass(slots=True)
class Course:
    """How a deal went. Nothing of it is in the script before `stage`."""

    opened: float
    outcome: str | None = None
    ended: float = 0.0
    amount: float = 0.0
    _moves: list[tuple[float, str, str, dict[str, Any], str | None]] = field(default_factory=list)
    target: UUID | None = None

    def stage(self, script: Script) -> None:
        """Puts it into the script."""
        if self.target is None:
            raise ValueError("the course has no deal")
        for when, actor, method, arguments, reason in self._moves:
            script.add(when, actor, method, self.target, reason=reason, **arguments)

    def add(
        self, when: float, actor: str, method: str, reason: str | None = None, /, **arguments: Any
    ) -> None:
        self._moves.append((when, actor, method, arguments, reason))


def course_of(script: Script, brief: Brief) -> Course:
    """Stages are passed, and take their time, about as `_COURSE` has it."""
    return _Walk(script, brief).course


class _Walk:
    def __init__(self, script: Script, brief: Brief) -> None:
        self._script = script
        self._brief = brief
        self._random: Random = script.random("deal", brief.id)
        self._owner = brief.owner
        self._when = brief.opened
        self.course = Course(brief.opened, target=script.stream("opportunity", brief.id))
        self.course.amount = min(self._random.lognormvariate(4.6, 0.8), 1500)
        slowest = 1.0 if brief.won else 2.0
        self._pace = min(max(1.2 ** log2(self.course.amount / _AVERAGE), 0.6), slowest)
        self._open()
        self._walk()

    def _open(self) -> None:
        brief, random = self._brief, self._random
        usual = sum(float(stage.duration_months) for stage in DEFAULT_STAGES) * _DAYS_A_MONTH
        self._do(
            "open_opportunity",
            customer_id=brief.customer_id,
            name=f"{brief.product or random.choice(PRODUCTS)} for {brief.customer_name}",
            amount=self._amount(),
            stage=DEFAULT_STAGES[0].name,
            expected_close=self._script.day(brief.opened) + timedelta(days=round(usual)),
            owner=brief.owner,
            campaign_id=brief.campaign_id,
            referred_by=brief.referred_by,
            external_id=self._script.external(brief.id),
        )

    def _walk(self) -> None:
        for n, stage in enumerate(DEFAULT_STAGES):
            chance, usual = _COURSE[stage.name]
            if stage is DEFAULT_STAGES[0] and self._brief.campaign_id is not None:
                chance += _INVITED
            passed = self._brief.won or self._random.random() < chance
            self._stay(stage.name, usual * self._pace * (1 if passed else _LINGERS))
            if self.course.outcome is not None:
                return
            if not passed:
                self._lose()
                return
            if n + 1 < len(DEFAULT_STAGES):
                self._do("change_stage", stage=DEFAULT_STAGES[n + 1].name)
        self._win()

    def _stay(self, stage: str, usual: float) -> None:
        """What happens between entering a stage and leaving it."""
        random = self._random
        entered, leaves = self._when, self._when + usual * random.gammavariate(5, 0.2) + 0.5
        happenings: list[Callable[[], None]] = [
            self._act for _ in range(random.choice((0, 0, 1, 2)))
        ]
        if random.random() < 0.12:
            happenings.append(self._change_amount)
        if random.random() < 0.12:
            happenings.append(self._put_off)
        if random.random() < 0.10:
            happenings.append(lambda: self._estimate(stage))
        if random.random() < 0.06:
            happenings.append(self._spend)
        if random.random() < 0.03:
            happenings.append(self._hand_over)
        if random.random() < 0.04:
            happenings.append(self._suspend)
        if stage == "negotiation" and random.random() < 0.12:
            happenings.append(self._back_to_bid)
        if not self._brief.won and random.random() < 0.03:
            happenings.append(self._terminate)
        random.shuffle(happenings)
        for n, happening in enumerate(happenings):
            planned = entered + (leaves - entered) * (n + 1) / (len(happenings) + 1)
            self._when = max(self._when, planned)
            happening()
            if self.course.outcome is not None:
                return
        self._when = max(self._when, leaves)

    def _amount(self) -> Money:
        return self._script.money(self.course.amount, self._brief.currency)

    def _act(self) -> None:
        kind = self._random.choice(sorted(ACTIVITIES))
        self._do("record_activity", kind=kind, result=self._random.choice(ACTIVITIES[kind]))

    def _change_amount(self) -> None:
        self.course.amount *= self._random.choice((0.8, 0.9, 1.1, 1.25))
        self._do("change_amount", amount=self._amount())

    def _put_off(self) -> None:
        later = timedelta(days=self._random.randint(20, 90))
        self._do(
            "change_expected_close",
            "budget is decided later",
            expected_close=self._script.day(self._when) + later,
        )

    def _estimate(self, stage: str) -> None:
        chance = chances_to_win(DEFAULT_STAGES)[stage]
        self._do("estimate_chance", chance=(chance * (8 + self._random.randint(0, 2)) / 10))

    def _spend(self) -> None:
        purpose = self._random.choice(("travel", "sample", "expert's opinion"))
        amount = self._script.money(1, self._brief.currency)
        self._do("book_expense", purpose=purpose, amount=amount)

    def _hand_over(self) -> None:
        if self._owner != self._brief.successor:
            self._do("transfer", owner=self._brief.successor)
            self._owner = self._brief.successor

    def _suspend(self) -> None:
        self._do("suspend", "the plant is being rebuilt")
        self.course.add(self._when + 0.4, self._owner, "resume")
        self._when += 0.4

    def _back_to_bid(self) -> None:
        self._do("change_stage", "the specification was changed", stage="bid")
        self.course.add(self._when + 0.4, self._owner, "change_stage", stage="negotiation")
        self._when += 0.4

    def _terminate(self) -> None:
        self._do("terminate", "the project was given up")
        self._end("terminated", review_chance=0.5, competitor=None)

    def _lose(self) -> None:
        competitor = self._random.choice(COMPETITORS)
        self._do("lose", cause=self._random.choice(LOSSES), competitor=competitor)
        self._end("lost", review_chance=0.6, competitor=competitor)

    def _win(self) -> None:
        random = self._random
        margin = self._brief.margin + random.gauss(0, 0.06)
        if random.random() < 0.07:
            margin = random.uniform(-0.18, 0.02)  # it was wanted at any price
        self._do(
            "sign_contract",
            amount=self._amount(),
            cost=self._script.cost(self.course.amount * (1 - margin), self._brief.currency),
            signed_on=self._script.day(self._when),
        )
        self._end("won", review_chance=0.7, competitor=random.choice(COMPETITORS))

    def _end(self, outcome: str, *, review_chance: float, competitor: str | None) -> None:
        self.course.outcome = outcome
        self.course.ended = self._when
        steps: list[tuple[str, float, dict[str, Any]]] = [
            (
                "review",
                review_chance,
                {"summary": self._random.choice(REVIEWS), "competitor": competitor},
            ),
            ("close_opportunity", 0.7, {}),
            ("archive_opportunity", 0.5, {}),
            ("purge_opportunity", 0.1, {}),
        ]
        for method, chance, arguments in steps:
            if self._random.random() >= chance:
                return
            self._when += self._random.uniform(3, 30)
            self._do(method, **arguments)

    def _do(self, method: str, reason: str | None = None, **arguments: Any) -> None:
        self.course.add(self._when, self._owner, method, reason, **arguments)
