"""A pipeline (销售漏斗): the stages deals go through, as versioned data (R41)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.errors import InvalidStages, UnknownStage
from domain.values import DECIMALS, ExternalId, Stage, decimals, probability, stream_id, text

STAGES: Final = 50
APPROVALS: Final = ("suspend", "terminate")
"""Changes of a deal's status that a pipeline may ask an approver for."""
_LONGEST_STAGE: Final = Decimal(1200)


@dataclass(frozen=True)
class Revision:
    """One version of a pipeline. A running deal keeps its own until it is moved (R41)."""

    number: int
    stages: tuple[Stage, ...]
    approvals: tuple[str, ...]

    def stage(self, name: str) -> Stage:
        """UnknownStage when the revision has none of that name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UnknownStage(f"revision {self.number} of the pipeline has no such stage")

    def place(self, name: str) -> int | None:
        """0 for the first stage; None when the revision has none of that name."""
        return next((i for i, stage in enumerate(self.stages) if stage.name == name), None)


class Pipeline(LedgerAggregate):
    TOPIC = "crm.pipeline"

    name: str = field(init=False)
    revisions: tuple[Revision, ...] = field(init=False, default=())

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        TOPIC = "crm.pipeline.defined"
        name: str
        stages: tuple[Stage, ...]
        approvals: tuple[str, ...] = ()

        def apply(self, aggregate: Pipeline) -> None:
            aggregate.name = self.name
            aggregate.revisions = (Revision(1, self.stages, self.approvals),)

    class Revised(Event):
        TOPIC = "crm.pipeline.revised"
        revision: int
        stages: tuple[Stage, ...]
        approvals: tuple[str, ...] = ()

        def apply(self, aggregate: Pipeline) -> None:
            revised = Revision(self.revision, self.stages, self.approvals)
            aggregate.revisions = (*aggregate.revisions, revised)

    @classmethod
    def define(
        cls,
        pipeline_id: UUID,
        *,
        name: str,
        stages: Sequence[Stage],
        approvals: Sequence[str],
        at: datetime,
    ) -> Self:
        return cls._create(
            cls.Created,
            id=pipeline_id,
            timestamp=at,
            name=text(name, "name"),
            stages=_checked_stages(stages),
            approvals=_checked_approvals(approvals),
        )

    @property
    def current(self) -> Revision:
        return self.revisions[-1]

    def revision(self, number: int) -> Revision:
        return next(r for r in self.revisions if r.number == number)

    def revise(self, *, stages: Sequence[Stage], approvals: Sequence[str], at: datetime) -> None:
        stages, approvals = _checked_stages(stages), _checked_approvals(approvals)
        if (stages, approvals) == (self.current.stages, self.current.approvals):
            return
        self.trigger_event(
            self.Revised,
            timestamp=at,
            revision=self.current.number + 1,
            stages=stages,
            approvals=approvals,
        )


def chances_to_win(stages: Sequence[Stage]) -> dict[str, Decimal]:
    """Of a deal in each stage: the product of the chances from there on (R42)."""
    chances: dict[str, Decimal] = {}
    chance = Decimal(1)
    for stage in reversed(stages):
        chance *= stage.chance_to_next
        chances[stage.name] = chance
    return {stage.name: chances[stage.name] for stage in stages}


def _checked_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    if not 1 <= len(stages) <= STAGES:
        raise InvalidStages(f"a pipeline has 1 to {STAGES} stages")
    if len({stage.name for stage in stages}) < len(stages):
        raise InvalidStages("two stages have the same name")
    if stages[0].approval:
        raise InvalidStages("the first stage is where deals are opened: it can't need approval")
    for stage in stages:
        text(stage.name, "stage name")
        probability(stage.chance_to_next, "chance_to_next")
        duration = stage.duration_months
        if not duration.is_finite() or not 0 <= duration <= _LONGEST_STAGE:
            raise InvalidStages(f"a stage takes 0 to {_LONGEST_STAGE} months")
        if decimals(duration) > DECIMALS:
            raise InvalidStages(f"a duration has at most {DECIMALS} decimals")
        if stage.visits_per_week is not None and not 1 <= stage.visits_per_week <= 1000:
            raise InvalidStages("visits per week are 1 to 1000")
    return tuple(stages)


def _checked_approvals(approvals: Sequence[str]) -> tuple[str, ...]:
    if not set(approvals) <= set(APPROVALS):
        raise InvalidStages(f"approvals are of {', '.join(APPROVALS)}")
    return tuple(sorted(set(approvals)))


DEFAULT_PIPELINE_ID: Final = stream_id("pipeline", ExternalId("crm-ledger", "project-sale"))
DEFAULT_PIPELINE_NAME: Final = "project sale"
DEFAULT_STAGES: Final = (  # 四阶段漏斗: 潜在客户, 项目投标, 商务洽谈, 签订合同 (R42)
    Stage("prospect", chance_to_next=Decimal("0.5"), duration_months=Decimal(2)),
    Stage("bid", chance_to_next=Decimal("0.8"), duration_months=Decimal(1)),
    Stage("negotiation", chance_to_next=Decimal("0.9"), duration_months=Decimal(1)),
    Stage("contract", chance_to_next=Decimal(1), duration_months=Decimal(0)),
)
