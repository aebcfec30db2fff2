"""From a deal to the commands that record it, each with a key that a second run computes again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.application import CRM
from domain.pipeline import DEFAULT_PIPELINE_ID
from domain.values import CustomerKind, ExternalId, Stage, stream_id
from workers.importing.deals import Deal
from workers.importing.lookups import Account, Lookups
from workers.importing.mapping import Layout
from workers.importing.survey import Survey
from workers.steps import Step, computed_id

OPENING: Final = "opening"
OUTCOME: Final = "outcome"
UNIDENTIFIED: Final = "unidentified account"
"""Added to the source's name in the external ids of customers still to be identified."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A deal and the step keys it may ever have, by name: opening, each stage, outcome."""

    deal: Deal
    id: UUID
    customer_id: UUID
    owner: str | None
    stages: tuple[str, ...]
    """Those it is to have entered, in order; the first at its opening."""
    keys: dict[str, str]


class Planner:
    """Makes plans and steps for one file, from what its survey told."""

    def __init__(
        self, crm: CRM, layout: Layout, lookups: Lookups, survey: Survey, file: str
    ) -> None:
        self._crm = crm
        self._layout = layout
        self._lookups = lookups
        self._survey = survey
        self._file = file
        self._zone: ZoneInfo = crm.timezone
        self._stages = [stage.name for stage in layout.pipeline_stages]
        self.pipeline_id = DEFAULT_PIPELINE_ID
        if layout.pipeline is not None:
            self.pipeline_id = stream_id("pipeline", self._external(layout.pipeline.name))

    # What it is about

    def plan(self, deal: Deal) -> Plan:
        external = deal.external_id
        entered = [deal.stage]
        if self._layout.enters_all:
            entered = self._stages[: self._stages.index(deal.stage) + 1]
        names = [OPENING, *(f"stage {name}" for name in self._stages), OUTCOME]
        return Plan(
            deal=deal,
            id=stream_id("opportunity", external),
            customer_id=stream_id("customer", self.customer(deal)),
            owner=None if deal.owner is None else str(self.owner_id(deal.owner)),
            stages=tuple(entered),
            keys={
                name: str(computed_id("import", "opportunity", external.source, external.id, name))
                for name in names
            },
        )

    def customer(self, deal: Deal) -> ExternalId:
        """What the source calls the deal's customer; one of its own where it names none."""
        if deal.account is not None:
            return self._external(deal.account)
        source = f"{self._layout.source}, {UNIDENTIFIED}"
        return ExternalId(source, deal.external_id.id)

    def owner_id(self, name: str) -> UUID:
        """Of a person in our own house: an id, since names are not to be in the log."""
        return stream_id("person", self._external(name))

    def opened_on(self, deal: Deal) -> date | None:
        """The file's day, else the one that the mapping gives; None: the day of the import."""
        return deal.opened or self._default_opening()

    def _default_opening(self) -> date | None:
        missing = self._layout.missing.opened
        return missing if isinstance(missing, date) else self._survey.earliest

    def midnight(self, day: date) -> datetime:
        """The instant at which the day begins."""
        return datetime.combine(day, time.min, tzinfo=self._zone).astimezone(UTC)

    # The steps

    def pipeline(self) -> Step | None:
        """Defines the mapping's pipeline; None where deals go through the default one."""
        given = self._layout.pipeline
        if given is None:
            return None
        return Step(
            self._crm.define_pipeline,
            self.pipeline_id,
            key=self._key("pipeline", given.name),
            content=given.name,
            arguments={
                "name": given.name,
                "stages": self._layout.pipeline_stages,
                "occurred_at": self._at(self._survey.earliest),
            },
            reason=f"import of {self._file}",
        )

    def account(self, name: str) -> Step:
        """Registers an account at its first fact."""
        known = (self._lookups.accounts or {}).get(name) or Account(name)
        profile: dict[str, Any] = {
            "industry": known.industry,
            "region": known.region,
            "attributes": dict(known.attributes or {}),
        }
        first = self._survey.first_facts.get(name) or self._default_opening()
        return self._registration(self._external(name), name, profile, first, self._file)

    def unidentified(self, deal: Deal) -> Step:
        """Registers the customer, still to be identified, of a deal that names no account."""
        external, first = self.customer(deal), self.opened_on(deal)
        return self._registration(external, None, {}, first, f"{self._file}, line {deal.line}")

    def _registration(
        self,
        external: ExternalId,
        name: str | None,
        profile: dict[str, Any],
        first: date | None,
        place: str,
    ) -> Step:
        return Step(
            self._crm.register_customer,
            stream_id("customer", external),
            key=self._key("customer", external.source, external.id),
            content=profile,
            arguments={
                "kind": CustomerKind.COMPANY,
                "name": name,
                "identified": name is not None,
                "source": self._layout.source,
                "external_id": external,
                "occurred_at": self._at(first),
                **profile,
            },
            reason=f"import of {place}",
        )

    def steps(self, plan: Plan) -> dict[str, Step]:
        """All that brings a new deal to where the file has it, by name and in order."""
        found = {OPENING: self._opening(plan)}
        for stage in plan.stages[1:]:
            found[f"stage {stage}"] = self.stage(plan, stage, self.opened_on(plan.deal))
        if plan.deal.outcome is not None:
            found[OUTCOME] = self._outcome(plan)
        return found

    def stage(self, plan: Plan, stage: str, entered: date | None) -> Step:
        return Step(
            self._crm.change_stage,
            plan.id,
            key=plan.keys[f"stage {stage}"],
            content=stage,
            arguments={"stage": stage, "occurred_at": self._at(entered)},
            reason=self._reason(plan.deal),
        )

    def taken_back(self, plan: Plan, done: Iterable[str]) -> Iterator[str]:
        """What an earlier file had (steps by name) and this one takes back."""
        for name in done:
            stage = name.removeprefix("stage ")
            if name == OUTCOME and plan.deal.outcome is None:
                yield "outcome: open in the file, ended in an earlier one"
            elif self._layout.enters_all and stage != name and stage not in plan.stages:
                yield f"stage: {plan.deal.stage} in the file, {stage} in an earlier one"

    def undated(self, plan: Plan) -> Plan:
        """As it was in a file that did not yet say when the deal was opened."""
        return replace(plan, deal=replace(plan.deal, opened=None))

    def content(self, plan: Plan) -> list[str | None]:
        """What the line itself says of the opening: neither prices nor dates taken for missing."""
        deal = plan.deal
        return [
            deal.name,
            deal.account,
            deal.owner,
            deal.product if deal.priced else str(deal.amount.value),
            deal.amount.currency,
            plan.stages[0],
            _written(deal.opened),
            _written(deal.expected_close),
        ]

    def _opening(self, plan: Plan) -> Step:
        deal = plan.deal
        return Step(
            self._crm.open_opportunity,
            plan.id,
            key=plan.keys[OPENING],
            content=self.content(plan),
            arguments={
                "customer_id": plan.customer_id,
                "name": deal.name,
                "amount": deal.amount,
                "pipeline_id": self.pipeline_id,
                "stage": plan.stages[0],
                "expected_close": deal.expected_close,
                "owner": plan.owner,
                "external_id": deal.external_id,
                "occurred_at": self._at(self.opened_on(deal)),
            },
            reason=self._reason(deal),
        )

    def _outcome(self, plan: Plan) -> Step:
        deal = plan.deal
        at = self._at(deal.closed)
        if deal.contract is not None:
            return Step(
                self._crm.sign_contract,
                plan.id,
                key=plan.keys[OUTCOME],
                content=["won", str(deal.contract), _written(deal.closed)],
                arguments={
                    "amount": deal.contract,
                    "signed_on": deal.closed,
                    "occurred_at": at,
                },
                reason=self._reason(deal),
            )
        return Step(
            self._crm.lose,
            plan.id,
            key=plan.keys[OUTCOME],
            content=["lost", deal.cause, deal.competitor, _written(deal.closed)],
            arguments={
                "cause": deal.cause,
                "competitor": deal.competitor,
                "occurred_at": at,
            },
            reason=self._reason(deal),
        )

    def _external(self, id_: str) -> ExternalId:
        return ExternalId.of(self._layout.source, id_)

    def _at(self, day: date | None) -> datetime | None:
        return None if day is None else self.midnight(day)

    def _key(self, *name: str) -> str:
        return str(computed_id("import", *name))

    def _reason(self, deal: Deal) -> str:
        return f"import of {self._file}, line {deal.line}"


def stages_missing(wanted: Sequence[str], known: Sequence[Stage]) -> list[str]:
    """Stages that deals are to enter and that the pipeline does not have."""
    names = {stage.name for stage in known}
    return [name for name in wanted if name not in names]


def _written(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
