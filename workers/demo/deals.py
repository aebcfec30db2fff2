"""One deal: through the stages of the default pipeline to an outcome, and what follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from domain.pipeline import DEFAULT_STAGES, chances_to_win
from workers.demo.names import ACTIVITIES, COMPETITORS, LOSSES, PRODUCTS, REVIEWS
from workers.demo.script import Script

_DAYS_A_MONTH: Final = 30.4
_SIGNING: Final = 6.0
"""Days in the last stage, whose usual time is nothing."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What a deal starts from."""

    id: str
    customer_id: UUID
    customer_name: str
    owner: str
    successor: str
    opened: float
    campaign_id: UUID | None = None
    referred_by: str | None = None
    won: bool = False
    """Whether it is to be won; else chance decides."""


@dataclass(slots=True)
class Course:
    """How a deal went. Nothing of it is in the script before `stage`."""

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
    """Stages take about their usual time; each is passed with about its chance."""
    return _Walk(script, brief).course


class _Walk:
    def __init__(self, script: Script, brief: Brief) -> None:
        self._script = script
        self._brief = brief
        self._random: Random = script.random("deal", brief.id)
        self._owner = brief.owner
        self._when = brief.opened
        self.course = Course(target=script.stream("opportunity", brief.id))
        self.course.amount = min(self._random.lognormvariate(4.6, 0.8), 1500)
        self._open()
        self._walk()

    def _open(self) -> None:
        brief, random = self._brief, self._random
        usual = sum(float(stage.duration_months) for stage in DEFAULT_STAGES) * _DAYS_A_MONTH
        self._do(
            "open_opportunity",
            customer_id=brief.customer_id,
            name=f"{random.choice(PRODUCTS)} for {brief.customer_name}",
            amount=self._script.money(self.course.amount),
            stage=DEFAULT_STAGES[0].name,
            expected_close=self._script.day(brief.opened) + timedelta(days=round(usual)),
            owner=brief.owner,
            campaign_id=brief.campaign_id,
            referred_by=brief.referred_by,
            external_id=self._script.external(brief.id),
        )

    def _walk(self) -> None:
        for n, stage in enumerate(DEFAULT_STAGES):
            self._stay(stage.name, float(stage.duration_months) * _DAYS_A_MONTH or _SIGNING)
            if self.course.outcome is not None:
                return
            if not self._brief.won and self._random.random() >= float(stage.chance_to_next):
                self._lose()
                return
            if n + 1 < len(DEFAULT_STAGES):
                self._do("change_stage", stage=DEFAULT_STAGES[n + 1].name)
        self._win()

    def _stay(self, stage: str, usual: float) -> None:
        """What happens between entering a stage and leaving it."""
        random = self._random
        entered, leaves = self._when, self._when + usual * random.gammavariate(5, 0.2) + 0.5
        happenings: list[Callable[[], None]] = [self._act for _ in range(random.randint(0, 2))]
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

    def _act(self) -> None:
        kind = self._random.choice(sorted(ACTIVITIES))
        self._do("record_activity", kind=kind, result=self._random.choice(ACTIVITIES[kind]))

    def _change_amount(self) -> None:
        self.course.amount *= self._random.choice((0.8, 0.9, 1.1, 1.25))
        self._do("change_amount", amount=self._script.money(self.course.amount))

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
        self._do("book_expense", purpose=purpose, amount=self._script.money(1))

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
        self._do(
            "sign_contract",
            amount=self._script.money(self.course.amount),
            signed_on=self._script.day(self._when),
        )
        self._end("won", review_chance=0.7, competitor=None)

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
