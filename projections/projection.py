"""The contract of read models: facts of a key, folded in the order in which they were true.

A *fold* turns the facts of one key (a customer, deal, campaign, pipeline) into rows that say what
was true when. It is a pure step from state to state. From that the engine here derives both times:

- `valid_*`: when it was true (`occurred_at` of the facts), half-open;
- `known_*`: when it was recorded (positions of the log), half-open.

Each event is one step of knowledge. The engine keeps a key's facts sorted by (occurred_at,
position) with the state after each. A fact that comes last costs one step; a late one is put in
its place and the steps after it are taken again until the states are the same as before. Rows
that the event made untrue are closed at its position, the new ones are known from there on. So a
key's rows, their positions included, are a function of its facts and the order of recording alone:
one by one, in batches, rebuilt or repartitioned give the same rows.

All values in facts, states and rows are texts ready for COPY (see `text`), NULL being `NULL`; only
a fold that calculates looks inside. Times are ISO 8601 in UTC, whose texts sort like the times.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from infra.eventstore.feed import Recorded
from projections.reading import NEWEST

NULL = r"\N"
INFINITY = "infinity"
TRUE, FALSE = "true", "false"

Fact: TypeAlias = tuple[Any, ...]
"""(occurred_at text, position int, *columns of the fold's fact table as texts)."""

Row: TypeAlias = tuple[int, str, str, str, str]
"""(number of the fold's period table, item, valid_from, valid_to, values); item and values are
columns joined by tabs."""

State: TypeAlias = tuple[Any, ...]
"""Immutable. Its first element are the open rows: those that the next fact may still change."""

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def text(value: str | None) -> str:
    """Free text for COPY. Ids, numbers and times need no escaping: `str` is enough for them."""
    if value is None:
        return NULL
    if "\\" in value or not value.isprintable():
        return value.translate(_ESCAPES)
    return value


def plain(value: object) -> str:
    """An id, number or date for COPY."""
    return NULL if value is None else str(value)


def instant(value: datetime) -> str:
    """A time for COPY, in UTC: these texts sort like the times they stand for."""
    return (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat(" ")


def joined(*columns: str) -> str:
    """Columns as item or values of a row."""
    return "\t".join(columns)


def turned(row: Row, at: str, values: str) -> tuple[Row, tuple[Row, ...]]:
    """The row with new values from `at` on, and what stays true before (nothing, if no time)."""
    table, item, since, _, _ = row
    if since == at:
        return (table, item, at, INFINITY, values), ()
    return (table, item, at, INFINITY, values), (ended(row, at),)


def ended(row: Row, at: str) -> Row:
    """The row, true until `at`."""
    return (row[0], row[1], row[2], at, row[4])


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class FactTable:
    """Insert-only, one row per event. The key's column and `position` are its primary key, which
    also finds a key's facts."""

    name: str
    comment: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Summed:
    """A column of a summary: its `expression` on the columns of a period table's row; without
    one, the column of the same name. It may use nothing but the row, and never fails."""

    name: str
    type: str
    expression: str = ""

    @property
    def sql(self) -> str:
        return self.expression or self.name


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of rows and sums of the `measures` over the rows for which `condition` holds, by
    `dimensions`, that `summaries` can tell for any two times without reading the rows.

    Needs a fold whose rows begin and end (`valid_from`, `valid_to`) when facts of their key
    occurred, as they do unless it reckons with times. A question reads a sum for each combination
    of dimensions that there was in each month: they should be few. What is summed up is part of
    the tables: another summary is another version.
    """

    dimensions: tuple[Summed, ...]
    measures: tuple[Summed, ...] = ()
    condition: str = "true"


@dataclass(frozen=True, slots=True)
class PeriodTable:
    """`item` tells rows of one key apart that are true at the same time. `indexes`: bodies of
    CREATE INDEX after the table's name, each with a comment on what needs it."""

    name: str
    comment: str
    item: tuple[Column, ...]
    values: tuple[Column, ...]
    indexes: tuple[tuple[str, str], ...] = ()
    summary: Summary | None = None

    @property
    def sums(self) -> str:
        """The name of the table that holds the summary."""
        return f"{self.name}_sum"


@dataclass(frozen=True, slots=True)
class View:
    """A view in schema `bi` on the projection's tables; `columns`: name → comment, in order."""

    name: str
    comment: str
    columns: Mapping[str, str]
    query: str


class Fold:
    """How the facts of one kind of key become rows. Subclasses hold no state."""

    key: ClassVar[Column]
    facts: ClassVar[FactTable]
    periods: ClassVar[tuple[PeriodTable, ...]]
    start: ClassVar[State]
    """The state before the first fact."""
    extract: ClassVar[Mapping[str, Callable[[Recorded], tuple[str, ...] | None]]]
    """Topic → the columns of the fact; None for an event that is no fact for this fold."""

    def key_of(self, recorded: Recorded) -> UUID:
        """The key an event belongs to: its stream, unless a fold says otherwise."""
        return recorded.stream_id

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state after the fact, and the rows that are settled by it.

        Settled rows are never changed by facts that come later in the order; those in the
        state's first element still may be. Must take any sequence of facts.
        """
        raise NotImplementedError


class Projection:
    """A read model: its folds, tables and views. `version` rises with every change of these that
    needs the tables to be filled anew."""

    name: ClassVar[str]
    version: ClassVar[int]
    folds: tuple[Fold, ...]
    views: ClassVar[tuple[View, ...]]

    @property
    def id(self) -> str:
        """Name and version, as the table of positions has it."""
        return f"{self.name}/{self.version}"

    @property
    def topics(self) -> list[str]:
        """The topics of the events it reads."""
        return sorted({topic for fold in self.folds for topic in fold.extract})

    def tables(self) -> list[str]:
        """The names of its tables."""
        return [name for fold in self.folds for name in table_names(fold)]

    def sums(self) -> list[str]:
        """The names of the tables that hold summaries of them."""
        return [t.sums for fold in self.folds for t in fold.periods if t.summary is not None]

    def ddl(self) -> list[str]:
        """Statements that make the tables where they are missing, in the search path's schema."""
        return [statement for fold in self.folds for statement in _fold_ddl(fold)]

    def indexes(self) -> list[str]:
        """Statements that make the indexes besides the primary keys where they are missing."""
        return [
            f"CREATE INDEX IF NOT EXISTS {name} ON {table} {body}"
            for fold in self.folds
            for table, name, body in _fold_indexes(fold)
        ]


def table_names(fold: Fold) -> list[str]:
    return [fold.facts.name, *(table.name for table in fold.periods)]


def fact_columns(fold: Fold) -> list[str]:
    """The fact table's columns in the order in which they are written."""
    return [fold.key.name, "occurred_at", "position", *(c.name for c in fold.facts.columns)]


def period_columns(fold: Fold, table: PeriodTable) -> list[str]:
    """The period table's columns in the order in which they are written."""
    own = (*table.item, *table.values)
    times = ("valid_from", "valid_to", "known_from", "known_to")
    return [fold.key.name, *(column.name for column in own), *times]


_TIMES = (
    Column("valid_from", "timestamptz NOT NULL", "True from this time on."),
    Column("valid_to", "timestamptz NOT NULL", "True until just before; infinity: still true."),
    Column("known_from", "bigint NOT NULL", "Known since this position of the log."),
    Column(
        "known_to",
        "bigint NOT NULL",
        f"Known until just before this position of the log; {NEWEST}: still known.",
    ),
)


PERIOD_COMMENTS = {column.name: column.comment for column in _TIMES}
"""The columns of both times, for views over whole periods: name → comment."""


def _fold_ddl(fold: Fold) -> Iterable[str]:
    key = Column(fold.key.name, "uuid NOT NULL", fold.key.comment)
    happened = Column("occurred_at", "timestamptz NOT NULL", "When it was true.")
    recorded = Column("position", "bigint NOT NULL", "Position of the event in the log.")
    yield from _table_ddl(
        fold.facts.name,
        fold.facts.comment,
        (key, happened, recorded, *fold.facts.columns),
        (key.name, "position"),
    )
    for table in fold.periods:
        identity = (key.name, *(c.name for c in table.item), "valid_from", "known_from")
        columns = (key, *table.item, *table.values, *_TIMES)
        yield from _table_ddl(table.name, table.comment, columns, identity)

        if table.summary is not None:
            yield from _summary_ddl(table.sums, table.name, table.summary)


def _summary_ddl(name: str, of: str, summary: Summary) -> Iterable[str]:
    columns = (
        Column("level", "smallint NOT NULL", "0: of one block of positions, 1: of sixteen, …"),
        Column("block", "bigint NOT NULL", "Number of the block within its level, from 0."),
        Column("span", "text NOT NULL", "month or day: how exactly it is known when."),
        Column("since", "date NOT NULL", "First day of the span, in UTC."),
        *(Column(d.name, d.type, f"Of the rows: {d.sql}.") for d in summary.dimensions),
        Column("rows", "bigint NOT NULL", "Rows that came true then, less those that ceased to."),
        *(Column(m.name, f"{m.type} NOT NULL", f"Sum: {m.sql}.") for m in summary.measures),
    )
    yield from _table_ddl(
        name, f"What {of} gained and lost, by when it was true and known.", columns
    )
    yield f"CREATE INDEX IF NOT EXISTS {name}_span ON {name} (level, block, span, since)"


def _fold_indexes(fold: Fold) -> Iterable[tuple[str, str, str]]:
    """(table, name, body) of each."""
    for table in fold.periods:
        for name, body in table.indexes:
            yield table.name, name, body
    if any(table.summary is not None for table in fold.periods):
        # What happened in a block of positions, and in a part of a day: summaries.
        yield fold.facts.name, f"{fold.facts.name}_position", "(position)"
        yield fold.facts.name, f"{fold.facts.name}_occurred", "(occurred_at)"


def _table_ddl(
    name: str, comment: str, columns: tuple[Column, ...], identity: tuple[str, ...] = ()
) -> Iterable[str]:
    listed = ", ".join(f"{column.name} {column.type}" for column in columns)
    key = f", PRIMARY KEY ({', '.join(identity)})" if identity else ""
    yield f"CREATE TABLE IF NOT EXISTS {name} ({listed}{key})"
    yield f"COMMENT ON TABLE {name} IS {quoted(comment)}"
    for column in columns:
        yield f"COMMENT ON COLUMN {name}.{column.name} IS {quoted(column.comment)}"


def quoted(literal: str) -> str:
    """Our own text as an SQL literal, safe also in a statement without parameters."""
    return "'" + literal.replace("'", "''") + "'"


class Entry:
    """A row of a period table and the positions between which it is known."""

    __slots__ = ("key", "known_from", "known_to", "row", "written")

    def __init__(self, key: str, row: Row, known_from: int) -> None:
        self.key = key
        self.row = row
        self.known_from = known_from
        self.known_to = NEWEST
        self.written = False


@dataclass(slots=True)
class Changes:
    """What a batch does to the tables of one fold.

    A row that comes and goes within the batch is in `added` once, already closed.
    """

    facts: list[str] = field(default_factory=list)
    added: list[Entry] = field(default_factory=list)
    closed: list[Entry] = field(default_factory=list)


class KeyState:
    """One key's facts in order, the states after each, the rows settled by each, and which rows
    are known now. A function of the facts and their order of arrival alone."""

    __slots__ = ("_known", "_settled", "_states", "_step", "facts", "key")

    def __init__(self, fold: Fold, key: UUID) -> None:
        self.key = str(key)
        self.facts: list[Fact] = []
        self._step = fold.step
        self._states: list[State] = [fold.start]  # one before each fact, and one after the last
        self._settled: list[tuple[Row, ...]] = []
        self._known: dict[
            tuple[object, ...], Entry
        ] = {}  # by number of the table, item, valid_from

    def apply(self, fact: Fact, changes: Changes) -> None:
        """Take in the next recorded fact. If its step raises, nothing has changed."""
        facts, states = self.facts, self._states
        if not facts or facts[-1] < fact:
            before = states[-1]
            after, settled = self._step(before, fact)
            facts.append(fact)
            states.append(after)
            self._settled.append(settled)
            if settled or after[0] is not before[0]:
                self._change(before[0], settled + after[0], fact[1], changes)
        else:
            self._apply_late(fact, changes)

    def _apply_late(self, fact: Fact, changes: Changes) -> None:
        facts, states, settled = self.facts, self._states, self._settled
        place = bisect(facts, fact)
        state, rows = self._step(states[place], fact)
        new_states, new_settled = [state], [rows]
        end = place
        while end < len(facts) and state != states[end]:
            state, rows = self._step(state, facts[end])
            new_states.append(state)
            new_settled.append(rows)
            end += 1
        old = [row for rows in settled[place:end] for row in rows]
        new = [row for rows in new_settled for row in rows]
        if end == len(facts):
            old.extend(states[end][0])
            new.extend(state[0])
        else:
            new_states[-1] = states[end]  # equal: keep the object, so that later looks are quick
        facts.insert(place, fact)
        states[place + 1 : end + 1] = new_states
        settled[place:end] = new_settled
        self._change(old, new, fact[1], changes)

    def _change(
        self,
        old: list[Row] | tuple[Row, ...],
        new: list[Row] | tuple[Row, ...],
        position: int,
        changes: Changes,
    ) -> None:
        known, key = self._known, self.key
        many = len(old) + len(new) > 16
        stays, was = (set(new), set(old)) if many else (new, old)
        for row in old:
            if row not in stays:
                entry = known.pop(row[:3])
                entry.known_to = position
                if entry.written:
                    changes.closed.append(entry)
        for row in new:
            if row not in was:
                entry = Entry(key, row, position)
                known[row[:3]] = entry
                changes.added.append(entry)

    def rows(self) -> list[Entry]:
        """The rows that are known now."""
        return list(self._known.values())


def fact_line(key: str, fact: Fact) -> str:
    """A fact as a line of COPY, without its end."""
    return "\t".join((key, fact[0], str(fact[1]), *fact[2:]))


def entry_line(entry: Entry) -> str:
    """A row of a period table as a line of COPY, without its end."""
    _, item, valid_from, valid_to, values = entry.row
    columns = f"{item}\t{values}" if item else values
    return f"{entry.key}\t{columns}\t{valid_from}\t{valid_to}\t{entry.known_from}\t{entry.known_to}"
