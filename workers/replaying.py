"""``crm replay``: history at the terminal, straight from the database, which it only reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from uuid import UUID

import orjson
import psycopg2.errors
from pydantic import BaseModel, ValidationError
from rich.console import Console

from api.audit import Handouts
from api.reflected import followed
from api.schemas.audit import DifferenceParameters, EventsParameters, StateParameters
from infra.handouts import Replayed, at_the_machine
from infra.history import answers, states, tracing
from infra.history.lines import Lines
from infra.history.reading import Reading, span
from infra.history.texts import Marked, OnHandout, Opened, Texts
from infra.postgres import Pool
from infra.settings import Settings
from infra.vault import erased_among, open_vault
from workers import showing
from workers.loop import DONE, INTERRUPTED, Signals
from workers.wiring import Databases, databases, models_of


class ReplayRefused(Exception):
    """What is asked for cannot be given; the message says why."""


class WrongOption(ReplayRefused):
    """An option's value is wrong, or two do not go together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of history: the state or a difference of a `stream`, a `command`'s trace, else
    the events that the filters leave."""

    filters: dict[str, Any]
    stream: UUID | None = None
    state: bool = False
    version: str | None = None
    as_of: str | None = None
    known_at: str | None = None
    difference: tuple[str, str] | None = None
    command: UUID | None = None
    personal: bool = False
    output: Path | None = None


def run_replay(
    settings: Settings,
    asked: Asked,
    *,
    out: BinaryIO | None = None,
    console: Console | None = None,
    told: OnHandout | None = None,
) -> int:
    """Writes what is asked for to ``asked.output`` or ``out`` (stdout): JSON, a line for each event
    and a last one that says where to go on; at a terminal, a state, difference or trace as a table.

    ``told`` hears of personal text before it is written. Returns the exit code. Raises
    ``WrongOption``, ``ReplayRefused``, and what keeps the database from being used. A file is
    written whole or not at all, and never over another.
    """
    checked = _checked(asked)
    with ExitStack() as stack:
        if out is not None or asked.output is not None:
            console = None
        elif console is None and sys.stdout.isatty():
            console = Console(highlight=False)
        try:
            stack.enter_context(Signals())
            file = stack.enter_context(_output(asked.output, out))
            addresses = stack.enter_context(databases(settings, administering=False))
            replay = _Replay(settings, addresses, asked, told, stack)
            replay.run(checked, file, console)
            file.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:  # as by `crm replay | head`
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except states.NoSuchStream:
            raise ReplayRefused(
                f"there is no stream {asked.stream}, or there was none then"
            ) from None
        except states.NotFoldable as error:
            raise ReplayRefused(f"no state from it on can be told: {error}") from None
        except states.TooManyDifferences:
            raise ReplayRefused(
                "they differ in too many places; take two that are closer"
            ) from None
    return DONE


class _Checked(NamedTuple):
    events: EventsParameters | None = None
    state: StateParameters | None = None
    difference: DifferenceParameters | None = None


def _checked(asked: Asked) -> _Checked:
    """By the same rules as what is asked by HTTP. Raises WrongOption."""
    filters = {name: value for name, value in asked.filters.items() if value not in (None, [])}
    times = {"as_of": asked.as_of, "known_at": asked.known_at}
    known = {name: value for name, value in times.items() if value is not None}
    about_state = asked.state or asked.difference is not None
    if sum((asked.state, asked.difference is not None, asked.command is not None)) > 1:
        raise WrongOption("--state, --difference and --command do not go together")
    if about_state and asked.stream is None:
        raise WrongOption("--state and --difference are of a --stream")
    if (asked.version is not None or known) and not about_state:
        raise WrongOption("--version, --as-of and --known-at go with --state or --difference")
    if (about_state or asked.command is not None) and filters:
        raise WrongOption(f"--{next(iter(filters))} is for events")
    if asked.command is not None:
        if asked.stream is not None:
            raise WrongOption("--command and --stream do not go together")
        return _Checked()
    if asked.difference is not None:
        if asked.version is not None or asked.as_of is not None:
            raise WrongOption("--difference has its own two versions or times")
        earlier, later = asked.difference
        between = {"from": earlier, "to": later, **known}
        return _Checked(difference=_valid(DifferenceParameters, between))
    if asked.state:
        version = {} if asked.version is None else {"version": asked.version}
        return _Checked(state=_valid(StateParameters, {**version, **known}))
    stream = {} if asked.stream is None else {"stream_id": asked.stream}
    return _Checked(events=_valid(EventsParameters, {**filters, **stream}))


def _valid(model: type[Any], values: dict[str, Any]) -> Any:
    try:
        found: BaseModel = model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f"--{part}: " for part in first["loc"][:1]).replace("_", "-")
        raise WrongOption(where + first["msg"].removeprefix("Value error, ")) from None
    return found


class _Replay:
    """One replay on the databases."""

    def __init__(
        self,
        settings: Settings,
        addresses: Databases,
        asked: Asked,
        told: OnHandout | None,
        stack: ExitStack,
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._asked = asked
        self._pool = self._reader(addresses.log, "log", stack)
        self._told = told or Replayed(self._reader(addresses.log, "log", stack, read_only="off"))
        self._stack = stack
        self._texts = self._made_texts()

    def run(self, checked: _Checked, file: BinaryIO, console: Console | None) -> None:
        if checked.events is not None:
            self._events(checked.events, file)
            return
        if self._asked.command is not None:
            answer, shown = self._trace(self._asked.command), showing.trace
        elif checked.difference is not None:
            answer, shown = self._difference(checked.difference), showing.differences
        else:
            answer, shown = self._state(checked.state or StateParameters()), showing.state
        if console is not None:
            showing.show(shown(answer), console)
        else:
            file.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))

    def _events(self, parameters: EventsParameters, file: BinaryIO) -> None:
        where = span(
            self._pool,
            after=parameters.after,
            to=parameters.to,
            since=parameters.since,
            until=parameters.until,
        )
        reading = Reading(self._pool, where, parameters.wanted(), parameters.limit)
        handouts = self._handouts(where.through)
        lines = Lines(self._texts)
        while not reading.ended:
            rows = reading.next()
            made = lines.of(rows)
            if rows:
                handouts.leaving(self._texts, rows[0].position)
            file.write(made)
        last = {"next_after": reading.position, "end": where.end}
        file.write(orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE))

    def _state(self, parameters: StateParameters) -> dict[str, Any]:
        when: states.When = states.AfterVersion(parameters.version)
        if parameters.as_of is not None or parameters.known_at is not None:
            when = states.AsOf(parameters.as_of, self._position(parameters.known_at))
        found = states.state(self._pool, self._stream, when)
        answer = answers.told_state(found, self._texts)
        self._handouts(found.through).leaving(self._texts, found.first)
        return answer

    def _difference(self, parameters: DifferenceParameters) -> dict[str, Any]:
        known = self._position(parameters.known_at)
        earlier, later = (
            states.AfterVersion(one) if isinstance(one, int) else states.AsOf(one, known)
            for one in (parameters.earlier, parameters.later)
        )
        found = states.differences(self._pool, self._stream, earlier, later)
        told = answers.told_differences(found, self._texts)
        positions = [fact.position for one in found for fact in one.made_by]
        if positions:
            self._handouts(max(positions)).leaving(self._texts, min(positions))
        return {"stream_id": str(self._stream), "differences": told}

    def _trace(self, command: UUID) -> dict[str, Any]:
        found = tracing.trace(self._pool, command)
        if found is None:
            raise ReplayRefused(f"no event of the log is of a command {command}")
        answer = answers.told_trace(found, self._texts)
        positions = [row.position for row in found.events]
        positions += [found.cause.position] if found.cause else []
        self._handouts(max(positions)).leaving(self._texts, min(positions))
        models = {name: model.id for name, model in models_of(self._settings).items()}
        pool = self._reader(self._addresses.read, "read", self._stack)
        keys = [(UUID(row.partition_key), row.position) for row in found.events]
        with pool.connection() as connection:
            reached = followed(connection, models, keys)
        return {**answer, "read_models": {name: asdict(one) for name, one in reached.items()}}

    @property
    def _stream(self) -> UUID:
        if self._asked.stream is None:
            raise WrongOption("--stream is missing")
        return self._asked.stream

    def _position(self, known_at: int | datetime | None) -> int | None:
        if not isinstance(known_at, datetime):
            return known_at
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT position_at(%s)", (known_at,))
            found: int = (cursor.fetchone() or (0,))[0]
        return found

    def _handouts(self, through: int) -> Handouts:
        return Handouts(self._told, at_the_machine(), through)

    def _reader(self, url: str, schema: str, stack: ExitStack, read_only: str = "on") -> Pool:
        pool = Pool(
            url,
            size=1,
            role="crm_reader",
            search_path=[schema],
            application_name="crm replay",
            settings={"default_transaction_read_only": read_only},
        )
        stack.callback(pool.close)
        return pool

    def _made_texts(self) -> Texts:
        keys = Pool(
            self._addresses.keys,
            size=1,
            role="crm_vault",
            search_path=["vault"],
            application_name="crm replay",
            autocommit=True,
            settings={"default_transaction_read_only": "on"},
        )
        self._stack.callback(keys.close)
        if self._asked.personal:
            if not self._settings.master_key_file.exists():
                raise ReplayRefused(
                    f"{self._settings.master_key_file} is not there: without the master key there"
                    " is no personal text"
                )
            return Opened(open_vault(keys, self._settings.master_key_file))

        def erased(subjects: list[UUID]) -> set[UUID]:
            """Of a login that may not look into the vault none: all are just personal."""
            try:
                return erased_among(keys, subjects)
            except (psycopg2.errors.InsufficientPrivilege, psycopg2.OperationalError):
                return set()

        return Marked(erased)


@contextmanager
def _output(path: Path | None, out: BinaryIO | None) -> Iterator[BinaryIO]:
    """The file under a name of its own until it is whole. Raises WrongOption."""
    if path is None:
        with nullcontext(out or sys.stdout.buffer) as file:
            yield file
        return
    if path.exists():
        raise WrongOption(f"--output: {path} is there already")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise WrongOption(f"--output: {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.link(draft, path)
    except FileExistsError:
        raise WrongOption(f"--output: {path} is there already") from None
    finally:
        draft.unlink(missing_ok=True)
