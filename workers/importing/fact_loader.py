"""The second reading of orders or responses: gives the commands, many at once.

What a second run finds: a line that is here adds nothing, also when its receipt has long expired;
an order that is here with another amount, cost or time is reported as changed and left as it is.
A row that stands twice in the file is two facts, in every run the same two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from domain.errors import AlreadyExists, DomainError
from infra.commands import KeyReused
from infra.eventstore.records import Receipt
from workers.importing.fact_plan import FactPlanner, Numbering, Recorded
from workers.importing.facts import Fact, FactReader
from workers.importing.records import LineError, Record, Table
from workers.importing.report import CHANGED
from workers.importing.work import Work, chunks
from workers.steps import Step

F = TypeVar("F", bound=Fact)


@dataclass(slots=True)
class FactTally:
    """Lines, by what became of them; the rest is in the report."""

    new: int = 0
    unchanged: int = 0
    customers: int = 0
    """That were registered."""
    campaigns: int = 0
    """That were planned."""


@dataclass(frozen=True, slots=True)
class _Line(Generic[F]):
    fact: F
    number: int
    step: Step


class FactLoader(Generic[F]):
    """Loads one file."""

    def __init__(self, work: Work, planner: FactPlanner[F], numbering: Numbering) -> None:
        self.tally = FactTally()
        self._work = work
        self._planner = planner
        self._numbering = numbering
        self._fresh: set[UUID] = set()
        """Customers that this run has registered: nothing older is recorded of them."""

    @property
    def done(self) -> int:
        """Lines that are dealt with."""
        return self.tally.new + self.tally.unchanged + self._work.reported

    async def campaigns(self, steps: Iterable[Step]) -> None:
        """Plans those that are not here."""
        for step in steps:
            if self._work.ended:
                return
            if step.key not in await self._work.known([step.key]) and await self._made(step):
                self.tally.campaigns += 1

    async def customers(self, names: Iterable[str], tell: Callable[[int], None]) -> None:
        """Registers those that are not here; `tell` hears how many have been looked at."""
        looked = 0
        async with self._work.group() as start:
            for chunk in chunks(names):
                steps = [self._planner.registration(name) for name in chunk]
                known = await self._work.known(step.key for step in steps)
                for step in steps:
                    if self._work.ended:
                        return
                    if step.key not in known:
                        await start(self._customer(step))
                looked += len(chunk)
                tell(looked)

    async def facts(self, table: Table, reader: FactReader[F], tell: Callable[[int], None]) -> None:
        """Loads the lines. Raises LogUnreachable, with what could be taken in."""
        file = table.path.name
        async with self._work.group() as start:
            for chunk in chunks(table.records()):
                lines = list(self._lines(chunk, reader, file))
                known = await self._work.known(line.step.key for line in lines)
                recorded = await self._recorded(lines, known)
                for line in lines:
                    if self._work.ended:
                        return
                    receipt = known.get(line.step.key)
                    if receipt is not None and self._work.same(line.step, receipt):
                        self.tally.unchanged += 1
                    else:
                        await start(self._line(line, recorded.get(line.step.target), file))
                tell(self.done)

    def _lines(self, chunk: list[Record], reader: FactReader[F], file: str) -> Iterator[_Line[F]]:
        for record in chunk:
            try:
                fact = reader.fact(record)
                number = self._numbering.number(fact)
                yield _Line(fact, number, self._planner.step(fact, number))
            except LineError as error:
                self._work.refused(file, record.line, reader.shown(record), error)

    async def _recorded(
        self, lines: list[_Line[F]], known: dict[str, Receipt]
    ) -> dict[UUID, Recorded]:
        """Of the customers that were here before this run and have lines without a receipt."""
        wanted = {
            line.step.target
            for line in lines
            if line.step.target not in self._fresh
            and (line.step.key not in known or not self._work.same(line.step, known[line.step.key]))
        }
        return {id_: Recorded.of(await self._work.stream(id_)) for id_ in wanted}

    async def _customer(self, step: Step) -> None:
        if await self._made(step):
            self._fresh.add(step.target)
            self.tally.customers += 1

    async def _made(self, step: Step) -> bool:
        """Whether it was not here. What else is refused, each line that needs it will say."""
        with suppress(AlreadyExists, KeyReused, DomainError):
            await self._work.do(step)
            return True
        return False

    async def _line(self, line: _Line[F], recorded: Recorded | None, file: str) -> None:
        fact = line.fact
        try:
            await self._taken(line, recorded)
        except DomainError as error:
            problem = self._planner.explained(fact, LineError(error.type, error.message))
            self._work.refused(file, fact.line, fact.shown(), problem)
        except KeyReused:
            problem = LineError(CHANGED, "another import is taking the line with other values")
            self._work.refused(file, fact.line, fact.shown(), problem)
        except LineError as error:
            self._work.refused(file, fact.line, fact.shown(), error)

    async def _taken(self, line: _Line[F], recorded: Recorded | None) -> None:
        differences = None
        if recorded is not None:
            differences = self._planner.differences(line.fact, line.number, recorded)
        if differences:
            raise LineError(CHANGED, "; ".join(differences))
        if differences is not None:
            self.tally.unchanged += 1
            return
        await self._work.do(line.step)
        self.tally.new += 1
