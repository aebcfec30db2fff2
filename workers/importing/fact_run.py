"""Imports of orders and of responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from infra.settings import Settings
from workers.importing.course import (
    Stopped,
    carry_out,
    exit_code,
    summarise,
    unreachable,
)
from workers.importing.fact_loader import FactLoader
from workers.importing.fact_mapping import OrderLayout, ResponseLayout
from workers.importing.fact_plan import (
    FactPlanner,
    FactSurvey,
    Numbering,
    OrderPlanner,
    ResponsePlanner,
    survey_facts,
)
from workers.importing.facts import (
    Fact,
    FactReader,
    Order,
    OrderReader,
    Response,
    ResponseReader,
)
from workers.importing.mapping import load_mapping
from workers.importing.records import Table
from workers.importing.report import Report
from workers.importing.work import Work
from workers.progress import progress, terminal
from workers.steps import LogUnreachable, Step, Steps
from workers.wiring import Ledger, now

F = TypeVar("F", bound=Fact)
L = TypeVar("L", OrderLayout, ResponseLayout)


@dataclass(frozen=True, slots=True)
class _Read(Generic[F, L]):
    """A file that has been read once."""

    table: Table
    reader: FactReader[F]
    layout: L
    survey: FactSurvey


def run_orders(
    settings: Settings,
    file: Path,
    mapping: str,
    *,
    source: str | None = None,
    report: Path | None = None,
    console: Console | None = None,
    clock: Callable[[], datetime] = now,
) -> int:
    """Loads the orders in `file`; returns the exit code (see `course`).

    `mapping` is a path or a shipped name, `source` replaces its source's name. `report` gets a
    line for each line that was not taken.
    """
    told = console or terminal()

    def read() -> _Read[Order, OrderLayout]:
        layout = load_mapping(mapping, OrderLayout, source=source)
        table = layout.file.table(file)
        reader = OrderReader(table, layout, settings.currency, settings.zone, clock())
        return _Read(table, reader, layout, _surveyed(told, table, reader))

    async def load(
        book: Ledger, read: _Read[Order, OrderLayout], report: Report, stopped: Stopped
    ) -> int:
        planner = OrderPlanner(book.crm, read.layout, read.survey, file.name)
        return await _load(book, read, planner, (), report, stopped, told)

    return carry_out(settings, told, report, clock, read=read, load=load)


def run_responses(
    settings: Settings,
    file: Path,
    mapping: str,
    *,
    source: str | None = None,
    report: Path | None = None,
    console: Console | None = None,
    clock: Callable[[], datetime] = now,
) -> int:
    """Loads the responses in `file`; otherwise like `run_orders`."""
    told = console or terminal()

    def read() -> _Read[Response, ResponseLayout]:
        layout = load_mapping(mapping, ResponseLayout, source=source)
        table = layout.file.table(file)
        reader = ResponseReader(table, layout, settings.zone, clock())
        return _Read(table, reader, layout, _surveyed(told, table, reader))

    async def load(
        book: Ledger, read: _Read[Response, ResponseLayout], report: Report, stopped: Stopped
    ) -> int:
        layout, survey = read.layout, read.survey
        planner = ResponsePlanner(book.crm, layout, survey, file.name, settings.currency)
        campaigns = map(planner.campaign, survey.campaigns)
        wanted = campaigns if layout.campaigns.missing == "plan" else ()
        return await _load(book, read, planner, wanted, report, stopped, told)

    return carry_out(settings, told, report, clock, read=read, load=load)


def _surveyed(console: Console, table: Table, reader: FactReader[F]) -> FactSurvey:
    with progress(console, "lines read", None) as told:
        return survey_facts(table, reader, told)


async def _load(
    book: Ledger,
    read: _Read[F, L],
    planner: FactPlanner[F],
    campaigns: Iterable[Step],
    report: Report,
    stopped: Stopped,
    console: Console,
) -> int:
    layout, survey = read.layout, read.survey
    steps = Steps(book.commands, book.tokens.derived_key("import"))
    work = Work(steps, report, f"import:{layout.source}", stopped)
    loader = FactLoader(work, planner, Numbering(survey.repeated))
    total = survey.lines
    try:
        await loader.campaigns(campaigns)
        if layout.customers.missing == "register":
            with progress(console, "customers", len(survey.customers)) as told:
                await loader.customers(survey.customers, told)
        with progress(console, "lines imported", total) as told:
            await loader.facts(read.table, read.reader, told)
    except LogUnreachable as error:
        return unreachable(console, error, loader.done, total)
    summarise(console, _summary(loader, layout, survey, report), report)
    return exit_code(console, report, stopped, loader.done, total)


def _summary(
    loader: FactLoader[F], layout: OrderLayout | ResponseLayout, survey: FactSurvey, report: Report
) -> str:
    tally = loader.tally
    parts = [
        f"{survey.lines:,} lines: {tally.new:,} new {layout.IMPORTS}",
        f"{tally.unchanged:,} unchanged",
        f"{report.counts.total():,} reported",
    ]
    beside = [f"{tally.customers:,} new customers"]
    if tally.campaigns:
        beside.append(f"{tally.campaigns:,} new campaigns")
    if survey.free:
        beside.append(f"{survey.free:,} orders of amount 0: they count as orders, not in sums")
    return f"{', '.join(parts)}. {'; '.join(beside)}."
