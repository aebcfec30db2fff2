"""Answers of the API as tables and bars for the terminal."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Answer = Mapping[str, Any]

BAR: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LONGEST_NAME: Final = 60
"""Characters of a name in one line."""
# Besides control characters those that turn the direction of all that follows on the line.
_COMMANDS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def bar(value: Decimal, largest: Decimal, width: int = BAR) -> str:
    """A bar as long as `value` is of `largest`, to an eighth of a character."""
    if largest <= 0 or value <= 0:
        return ""
    eighths = int(min(value / largest, Decimal(1)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + _EIGHTHS[rest].strip()


def money(found: Mapping[str, str] | None) -> str:
    """Grouped by thousands, as 1,234.50; a dash where there is none."""
    return "–" if found is None else f"{Decimal(found['value']):,}"


def name(told: object) -> str:
    """As people entered it, less what a terminal would obey instead of showing."""
    return _COMMANDS.sub("\ufffd", " ".join(str(told).split()))


def forecast(answer: Answer) -> RenderableType:
    months = answer["months"]
    largest = max((_value(month["expected"]) for month in months), default=Decimal(0))
    table = _table("month", "from", "to", "expected", "sd", "median", "80 %", "")
    for month in months:
        low, high = _interval(month, Decimal("0.8"))
        table.add_row(
            str(month["month"]),
            month["from"],
            month["to"],
            money(month["expected"]),
            money(month["sd"]),
            money(month.get("median")),
            f"{money(low)} to {money(high)}" if low else "–",
            bar(_value(month["expected"]), largest),
        )
    summary = Text(
        f"total {money(answer['total'])} {answer['currency']}, sd {money(answer['sd'])};"
        f" later {money(answer['beyond'])}"
    )
    return Group(table, summary, *_others(answer), _reflected(answer))


def lifecycle(answer: Answer) -> RenderableType:
    values = answer["distribution"]
    largest = Decimal(max((value["customers"] for value in values), default=0))
    table = _table(answer["classification"], "customers", "share", "")
    for value in values:
        count = value["customers"]
        share = f"{count / answer['customers']:.1%}" if answer["customers"] else "–"
        table.add_row(Text(value["value"]), f"{count:,}", share, bar(Decimal(count), largest))
    return Group(table, Text(f"{answer['customers']:,} customers"), _reflected(answer))


def attribution(answer: Answer) -> RenderableType:
    campaigns = answer["campaigns"]
    largest = max(
        (_value(answer["unattributed"]), *(_value(one["credit"]) for one in campaigns)),
        default=Decimal(0),
    )
    table = _table("campaign", "credit", "cost", "return", "")
    for one in campaigns:
        table.add_row(
            Text(name(one.get("name") or one["campaign_id"])),
            money(one["credit"]),
            money(one["cost"]),
            "–" if one["return"] is None else f"{Decimal(one['return']):.1%}",
            bar(_value(one["credit"]), largest),
        )
    unattributed = answer["unattributed"]
    table.add_row("unattributed", money(unattributed), "–", "–", bar(_value(unattributed), largest))
    summary = Text(f"won revenue {money(answer['revenue'])} {answer['currency']}")
    return Group(table, summary, *_others(answer), _reflected(answer))


def state(answer: Answer) -> RenderableType:
    """The state of a thing, a line for each of its fields."""
    table = _table("field", "value")
    for field, value in answer["state"].items():
        table.add_row(field, Text(_plain(value)))
    stream = answer["stream"]
    told = (
        f"{stream['kind']} {stream['id']}, version {answer['version']:,}, of"
        f" {answer['events']:,} events up to position {answer['position']:,}"
    )
    return Group(table, Text(told, style="dim"))


def differences(answer: Answer) -> RenderableType:
    """What changed, a line for each place."""
    table = _table("what", "before", "after", "by", "on", "reason", "event")
    for one in answer["differences"]:
        by = one["made_by"][-1]
        table.add_row(
            Text(name(one["what"])),
            Text(_plain(one["before"])),
            Text(_plain(one["after"])),
            Text(name(by["actor"])),
            by["occurred_at"][:10],
            Text(name(by["reason"] or "")),
            f"{by['type']} at {by['position']:,}",
        )
    return Group(table, Text(f"{len(answer['differences']):,} differences", style="dim"))


def trace(answer: Answer) -> RenderableType:
    """A command: its events, its cause, and what came of it."""
    table = _table("", "position", "type", "stream", "by", "recorded")
    cause = answer["caused_by"]
    if cause is not None:
        event = cause["event"]
        table.add_row("caused by", *([f"{cause['id']}", "", "", "", ""] if event is None
                                     else _event_cells(event)))  # fmt: skip
    for event in answer["events"]:
        table.add_row("recorded", *_event_cells(event))
    for one in answer["caused"]:
        for event in one["events"]:
            whole = {**event, "actor": one["actor"], "recorded_at": one["recorded_at"]}
            table.add_row("gave rise to", *_event_cells(whole))
    models = ", ".join(
        f"{model} {'yes' if one['visible'] else 'not yet'}"
        for model, one in answer["read_models"].items()
    )
    receipts = ", ".join(f"{one['status']} under {name(one['key'])}" for one in answer["receipts"])
    told = [
        f"command {answer['command_id']} by {name(answer['actor'])}",
        f"answered {receipts or 'before what is kept'}",
        f"in the read models: {models}",
    ]
    return Group(table, *(Text(line, style="dim") for line in told))


def _event_cells(event: Answer) -> list[RenderableType]:
    stream = event["stream"]
    return [
        f"{event['position']:,}",
        event["type"],
        f"{stream['kind']} {stream['id']} {event['version']:,}",
        Text(name(event["actor"])),
        event["recorded_at"],
    ]


def _plain(value: object) -> str:
    """A value of a state for people: amounts with their currency, the rest as JSON has it."""
    if value is None:
        return "–"
    if isinstance(value, Mapping) and value.keys() == {"value", "currency"}:
        return f"{money(value)} {value['currency']}"
    return name(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def show(found: RenderableType, console: Console | None = None) -> None:
    """Prints it with all its figures: wider than the terminal rather than cut off, and in the
    nearest characters where the output's encoding has no others."""
    console = console or Console(highlight=False)
    if isinstance(console.file, io.TextIOWrapper) and console.file.errors in _GIVING_UP:
        console.file.reconfigure(errors=_NEAREST)
    parts = found.renderables if isinstance(found, Group) else [found]
    tables = [part for part in parts if isinstance(part, Table)]
    widths = [Measurement.get(console, _unbounded(console), table).maximum for table in tables]
    console.width = max(console.width, *widths, 0)
    console.print(found)


_GIVING_UP: Final = ("strict", "surrogateescape")
_NEAREST: Final = "crm-nearest"
_REPLACED: Final = str.maketrans({"█": "#", **dict.fromkeys(_EIGHTHS[1:], ""), "–": "-"})


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_REPLACED)
    return re.sub("[^\x20-\x7e]", "?", lost), error.end


codecs.register_error(_NEAREST, _nearest)


def _unbounded(console: Console) -> ConsoleOptions:
    return console.options.update(width=10_000, max_width=10_000)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        numeric = column in _NUMERIC
        table.add_column(
            column,
            justify="right" if numeric else "left",
            no_wrap=numeric,
            max_width=None if numeric else _LONGEST_NAME,
            overflow="fold",
        )
    return table


_NUMERIC: Final = frozenset(
    ("month", "expected", "sd", "median", "80 %", "customers", "share", "credit", "cost", "return")
)


def _value(found: Mapping[str, str] | None) -> Decimal:
    return Decimal(found["value"]) if found else Decimal(0)


def _interval(
    month: Answer, level: Decimal
) -> tuple[Mapping[str, str] | None, Mapping[str, str] | None]:
    for interval in month.get("intervals") or ():
        if Decimal(interval["level"]) == level:
            return interval["low"], interval["high"]
    return None, None


def _others(answer: Answer) -> Iterable[Text]:
    for other in answer.get("other_currencies") or ():
        amount = other.get("weighted") or other["amount"]
        yield Text(f"beside it {money(amount)} {amount['currency']} of {other['deals']:,} deals")


def _reflected(answer: Answer) -> Text:
    definitions: Sequence[str] = [f"{k} {v}" for k, v in (answer.get("definition") or {}).items()]
    told = f"as of {answer['as_of']}, known at position {answer['known_at']:,}"
    named = f", definition {', '.join(definitions)}" if definitions else ""
    parked = f"; {answer['parked']:,} parked keys are not in it" if answer.get("parked") else ""
    return Text(told + named + parked, style="dim")
