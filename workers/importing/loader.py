"""The second reading: gives the commands, many at once, and tells what was not taken.

What a second run finds:
- an unchanged line adds nothing;
- a deal that has gone on in the file (to a stage it has not been in, to an outcome) goes on here;
- whatever else a line says otherwise than it was recorded is reported as changed and left as it
  is here, since the deal may have been worked on here in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from domain.errors import AlreadyExists, DomainError
from domain.pipeline import Pipeline
from infra.commands import KeyReused
from infra.eventstore.records import Receipt
from workers.importing.deals import Deal, Reader
from workers.importing.history import History, customer_differences
from workers.importing.lookups import Lookups
from workers.importing.plan import OPENING, OUTCOME, Plan, Planner, stages_missing
from workers.importing.records import FileError, LineError, Record, Table
from workers.importing.report import CHANGED
from workers.importing.survey import Survey
from workers.importing.work import Work, chunks
from workers.steps import Step


@dataclass(slots=True)
class Tally:
    """Lines, by what became of them; the rest is in the report."""

    new: int = 0
    carried_on: int = 0
    unchanged: int = 0


class Loader:
    """Loads one file of deals."""

    def __init__(self, work: Work, planner: Planner, survey: Survey) -> None:
        self.tally = Tally()
        self._work = work
        self._planner = planner
        self._survey = survey

    @property
    def done(self) -> int:
        """Lines that are dealt with."""
        tally = self.tally
        return tally.new + tally.carried_on + tally.unchanged + self._work.reported

    async def prepare(self, stages: Iterable[str]) -> None:
        """Sees to the pipeline. Raises FileError if it lacks one of the stages."""
        step = self._planner.pipeline()
        if step is not None:
            with suppress(AlreadyExists, KeyReused):
                await self._work.do(step)
        events = await self._work.stream(self._planner.pipeline_id)
        known = [e for e in events if isinstance(e, (Pipeline.Created, Pipeline.Revised))]
        missing = stages_missing(list(stages), known[-1].stages if known else ())
        if missing:
            raise FileError(f"the pipeline here has no stage {missing[0]!r}: revise it first")

    async def accounts(self, lookups: Lookups, file: str) -> None:
        """Registers the accounts that the file's deals name."""
        async with self._work.group() as start:
            for chunk in chunks(self._survey.first_facts):
                steps = {name: self._planner.account(name) for name in chunk}
                known = await self._work.known(step.key for step in steps.values())
                for name, step in steps.items():
                    receipt = known.get(step.key)
                    if receipt is not None and self._work.same(step, receipt):
                        continue
                    if self._work.ended:
                        return
                    account = (lookups.accounts or {}).get(name)
                    line = account.line if account is not None else 0
                    await start(self._account(step, name, file, line))

    async def deals(
        self,
        table: Table,
        reader: Reader,
        tell: Callable[[int], None],
    ) -> None:
        """Loads the deals. Raises LogUnreachable, with what could be taken in."""
        file = table.path.name
        async with self._work.group() as start:
            first_lines: dict[str, int] = {}
            for chunk in chunks(table.records()):
                plans = list(self._plans(chunk, reader, first_lines, file))
                known = await self._work.known(key for plan in plans for key in plan.keys.values())
                for plan in plans:
                    if self._work.ended:
                        return
                    await start(self._deal(plan, known, file))
                tell(self.done)

    def _plans(
        self, chunk: list[Record], reader: Reader, first_lines: dict[str, int], file: str
    ) -> Iterator[Plan]:
        for record in chunk:
            try:
                deal = reader.deal(record)
                self._check_once(deal, first_lines)
            except LineError as error:
                self._work.refused(file, record.line, reader.id_of(record), error)
            else:
                yield self._planner.plan(deal)

    def _check_once(self, deal: Deal, first_lines: dict[str, int]) -> None:
        id_ = deal.external_id.id
        if hash(id_) not in self._survey.repeated:
            return
        first = first_lines.setdefault(id_, deal.line)
        if first != deal.line:
            raise LineError("duplicate-id", f"the id stands in line {first}, too")

    async def _account(self, step: Step, name: str, file: str, line: int) -> None:
        try:
            try:
                await self._work.do(step)
            except (AlreadyExists, KeyReused):
                differences = customer_differences(await self._work.stream(step.target), step)
                if differences:
                    problem = LineError(CHANGED, "; ".join(differences))
                    self._work.beside(file, line, name, problem)
        except DomainError as error:
            self._work.beside(file, line, name, LineError(error.type, error.message))

    async def _deal(self, plan: Plan, known: dict[str, Receipt], file: str) -> None:
        deal = plan.deal
        try:
            await self._taken(plan, known)
        except DomainError as error:
            problem = LineError(error.type, error.message)
            self._work.refused(file, deal.line, deal.external_id.id, problem)
        except KeyReused:
            problem = LineError(CHANGED, "another import is taking the line with other values")
            self._work.refused(file, deal.line, deal.external_id.id, problem)
        except LineError as error:
            self._work.refused(file, deal.line, deal.external_id.id, error)

    async def _taken(self, plan: Plan, known: dict[str, Receipt]) -> None:
        steps = self._planner.steps(plan)
        done = {name: known[key] for name, key in plan.keys.items() if key in known}
        if done.keys() == steps.keys() and all(
            self._work.same(step, done[name]) for name, step in steps.items()
        ):
            self.tally.unchanged += 1
            return
        if not done and await self._opened(plan, steps[OPENING]):
            for name, step in steps.items():
                if name != OPENING:
                    await self._work.do(step)
            self.tally.new += 1
            return
        await self._carried_on(plan, steps, done)

    async def _opened(self, plan: Plan, step: Step) -> bool:
        """Whether the deal was new."""
        if plan.deal.account is None:
            with suppress(AlreadyExists, KeyReused):
                await self._work.do(self._planner.unidentified(plan.deal))
        try:
            await self._work.do(step)
        except AlreadyExists:
            return False
        return True

    async def _carried_on(
        self, plan: Plan, steps: dict[str, Step], done: dict[str, Receipt]
    ) -> None:
        """Brings a deal that is here to where the file has it, and reports what contradicts."""
        deal = plan.deal
        history = History.of(await self._work.stream(plan.id))
        if history is None:
            raise LineError("id-taken", "the id is of something else here")
        opened = deal.opened if self._opening_differs(plan, steps[OPENING], done) else None
        differences = [
            *history.differences(
                plan,
                None if opened is None else self._planner.midnight(opened),
                None if deal.closed is None else self._planner.midnight(deal.closed),
            ),
            *self._planner.taken_back(plan, done),
        ]
        missing = [stage for stage in plan.stages if stage not in history.entered]
        if history.outcome is None:
            for stage in missing:
                entered = self._entered(plan, history)
                await self._work.do(self._planner.stage(plan, stage, entered))
            if OUTCOME in steps:
                await self._work.do(steps[OUTCOME])
        if differences:
            raise LineError(CHANGED, "; ".join(differences))
        if history.outcome is None and (missing or OUTCOME in steps):
            self.tally.carried_on += 1
        else:
            self.tally.unchanged += 1

    def _opening_differs(self, plan: Plan, step: Step, done: dict[str, Receipt]) -> bool:
        """Whether the opening is known to have been imported with another date."""
        receipt = done.get(OPENING)
        if receipt is None:
            return False
        undated = self._work.hash(self._planner.content(self._planner.undated(plan)))
        return not self._work.same(step, receipt) and receipt.request_hash != undated

    def _entered(self, plan: Plan, history: History) -> date | None:
        """The best that the line says of when a deal that was here entered its stage."""
        deal = plan.deal
        opened = deal.opened if len(plan.stages) > 1 else None
        if opened is not None and self._planner.midnight(opened) < history.opened.timestamp:
            opened = None
        return deal.stage_since or opened or deal.closed

    def _same(self, step: Step, receipt: Receipt) -> bool:
        return self._work.hash(step.content) == receipt.request_hash
