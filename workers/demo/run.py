"""The demo company, from its script into the log: one command after the other, in order of time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import uvloop
from rich.console import Console
from rich.markup import escape

from domain.errors import AlreadyExists, DomainError
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_PIPELINE_NAME, DEFAULT_STAGES
from infra.cluster import make_data_dir
from infra.commands import KeyReused
from infra.settings import Settings
from workers.demo.campaigns import stage_campaigns
from workers.demo.customers import FIRST_CUSTOMER, OWNERS, stage_customers
from workers.demo.rates import stage_rates
from workers.demo.rehearsal import rehearsed
from workers.demo.script import DAYS, Line, Script
from workers.demo.teams import stage_teams
from workers.loop import INTERRUPTED, Signals
from workers.progress import progress, terminal
from workers.steps import LogUnreachable, Step, Steps, computed_id
from workers.wiring import Ledger, databases, ledger, now

_TELL_EVERY: Final = 50
_FIRST_YEAR: Final = 1903


class DemoError(Exception):
    """The demo company cannot be made as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Populated:
    """What became of it: `done` of `total` commands were given now, the others before."""

    until: date
    total: int
    done: int
    complete: bool


def write_script(seed: int, until: date, zone: ZoneInfo, currency: str) -> list[Line]:
    """The company's two years that end before `until`, with what the policies have done in them:
    the same for the same arguments."""
    script = Script(seed, until, zone, currency)
    stage_rates(script)
    stage_teams(script, OWNERS)
    stage_customers(script, stage_campaigns(script))
    return rehearsed(script.lines(), script.end, zone)


async def populate(
    book: Ledger,
    *,
    seed: int,
    until: date | None = None,
    currency: str,
    stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Populated:
    """Gives the commands that have not been given yet; a second time there are none.

    Without `until` a company that is there keeps its own; a new one ends with yesterday. Exchange
    rates that others quote are left as they are. `tell` hears how many are done of how many.
    Raises DemoError and LogUnreachable.
    """
    zone = book.crm.timezone
    steps = Steps(book.commands, book.tokens.derived_key("demo"))
    there = await _until_of(steps, seed, zone, currency)
    if there is not None and until not in (None, there):
        raise DemoError(f"the company of seed {seed} is there, up to {there}: leave out --until")
    today = book.crm.clock().astimezone(zone).date()
    last = there or until or today
    if last > today:
        raise DemoError(f"--until {last} is in the future")
    if last.year < _FIRST_YEAR:
        raise DemoError(f"--until {last} is before {_FIRST_YEAR}")
    lines = write_script(seed, last, zone, currency)
    begun = [(line, _step(book, seed, n, line)) for n, line in enumerate(lines)]
    known = await _known(steps, begun)
    if there is not None and begun[0][1].key not in known:
        return Populated(last, len(begun), 0, complete=True)  # older than what receipts tell
    begun = await _without_others_rates(steps, begun, known)
    await _define_pipeline(book, steps, seed, lines[0].at)
    done = 0
    for n, (line, step) in enumerate(begun):
        if stopped():
            return Populated(last, len(begun), done, complete=False)
        if step.key in known:
            continue
        try:
            await steps.do(step, line.actor)
        except KeyReused:
            raise DemoError(
                f"the company of seed {seed} was begun with other settings or by another version"
            ) from None
        except DomainError as error:
            raise DemoError(f"{line.method} of {line.target}: {error.message}") from None
        done += 1
        if n % _TELL_EVERY == 0:
            tell(n, len(begun))
    return Populated(last, len(begun), done, complete=True)


async def _until_of(steps: Steps, seed: int, zone: ZoneInfo, currency: str) -> date | None:
    """The end of the company that is there, from the first thing that happened in it."""
    first = Script(seed, date.max, zone, currency).stream("customer", FIRST_CUSTOMER)
    events = await steps.stream(first)
    if not events:
        return None
    began: datetime = events[0].timestamp
    return began.astimezone(zone).date() + timedelta(days=DAYS)


async def _known(steps: Steps, begun: list[tuple[Line, Step]]) -> set[str]:
    """The keys of the commands that were given before."""
    by_actor: dict[str, list[str]] = defaultdict(list)
    for line, step in begun:
        by_actor[line.actor].append(step.key)
    found: set[str] = set()
    for actor, keys in by_actor.items():
        found |= (await steps.receipts(actor, keys)).keys()
    return found


async def _without_others_rates(
    steps: Steps, begun: list[tuple[Line, Step]], known: set[str]
) -> list[tuple[Line, Step]]:
    """Without the rates of a pair of currencies that somebody else has begun to quote."""
    first: dict[UUID, Step] = {}
    for line, step in begun:
        if line.method == "record_rate":
            first.setdefault(line.target, step)
    others = {
        pair for pair, step in first.items() if step.key not in known and await steps.stream(pair)
    }
    return [(line, step) for line, step in begun if line.target not in others]


async def _define_pipeline(book: Ledger, steps: Steps, seed: int, at: datetime) -> None:
    """As old as the company, unless the default pipeline is there."""
    step = Step(
        book.crm.define_pipeline,
        DEFAULT_PIPELINE_ID,
        key=str(computed_id("demo", seed, "pipeline")),
        content="default pipeline",
        arguments={
            "name": DEFAULT_PIPELINE_NAME,
            "stages": DEFAULT_STAGES,
            "occurred_at": at,
        },
    )
    try:
        await steps.do(step, "system")
    except AlreadyExists:
        return


def _step(book: Ledger, seed: int, n: int, line: Line) -> Step:
    return Step(
        getattr(book.crm, line.method),
        line.target,
        key=str(computed_id("demo", seed, "line", n)),
        content=[line.method, {name: str(value) for name, value in line.arguments.items()}],
        arguments={**line.arguments, "occurred_at": line.at},
        reason=line.reason,
        causation_id=line.causation_id,
    )


def run_demo(
    settings: Settings,
    *,
    seed: int = 1,
    until: date | None = None,
    console: Console | None = None,
    clock: Callable[[], datetime] = now,
) -> int:
    """Makes the company in the product's own log; returns the exit code.

    0: it is there. 1: the log could not be reached. 2: it cannot be made as asked. 130: stopped.
    """
    console = console or terminal()
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        try:
            make_data_dir(settings.data_dir)
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses, clock))
            signals.serving = True
        except KeyboardInterrupt:
            return INTERRUPTED
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_told(book, settings, seed, until, signals, console))


async def _told(
    book: Ledger,
    settings: Settings,
    seed: int,
    until: date | None,
    signals: Signals,
    console: Console,
) -> int:
    try:
        with progress(console, "commands given", None) as told:
            populated = await populate(
                book,
                seed=seed,
                until=until,
                currency=settings.currency,
                stopped=signals.stopped.is_set,
                tell=told,
            )
    except DemoError as error:
        console.print(f"crm: {escape(str(error))}")
        return 2
    except LogUnreachable as error:
        console.print(f"crm: the log cannot be reached: {escape(str(error))}")
        return 1
    finally:
        await book.commands.close()
    if not populated.complete:
        console.print("Stopped. Run it again to go on.")
        return INTERRUPTED
    if populated.done:
        given = f"{populated.done:,} of {populated.total:,} commands given"
    else:
        given = "it was there already"
    console.print(f"The company of seed {seed}, up to {populated.until}: {given}.")
    return 0
