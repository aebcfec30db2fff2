"""Pictures of where customers stand, and how they came from there to there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from api.plots.paper import COLOURS, GRID, INK, QUIET, WIDTH, nothing, rows

_ABSENT = "absent"
WIDE: Final = 5
"""Up to so many columns each block has its name; above, the first and the last of a row."""


def distribution(figure: Figure, content: Mapping[str, Any]) -> None:
    """How many customers stand at each value of the classification."""
    values = content["distribution"]
    title = f"Customers by {content['classification']}"
    if not content["customers"]:
        nothing(figure, title)
        return
    figure.set_size_inches(WIDTH, 1.8 + 0.5 * len(values))
    axes = figure.subplots()
    axes.set_title(title)
    rows(axes, [value["value"] for value in values])
    counts = [value["customers"] for value in values]
    axes.barh(range(len(values)), counts, height=0.62, color=COLOURS[0])
    for place, count in enumerate(counts):
        share = count / content["customers"]
        axes.annotate(f"{count:,} ({share:.1%})", (count, place), (6, 0),
                      textcoords="offset points", va="center", fontsize=9)  # fmt: skip
    axes.set_xlim(0, max(counts) * 1.2)
    axes.set_xlabel("customers")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def flows(figure: Figure, content: Mapping[str, Any]) -> None:
    """A Sankey diagram: a column of values for each date, and who moved from where to where."""
    columns, links = _layout(content)
    title = f"Customers by {content['classification']}, from date to date"
    if not any(height for column in columns for height in column["heights"].values()):
        nothing(figure, title)
        return
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_axis_off()
    total = max(sum(column["heights"].values()) for column in columns)
    gap = total * 0.04  # a name's height, so that those of small blocks stand apart
    narrow = len(columns) > WIDE
    shown = [value for value in columns[0]["values"] if value != _ABSENT]
    colour = {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(shown)}
    colour[_ABSENT] = QUIET
    floors = [_floors(column, gap) for column in columns]
    out = [dict(floor) for floor in floors]
    into = [dict(floor) for floor in floors]
    for step, source, target, count in links:
        start, end = out[step][source], into[step + 1][target]
        out[step][source] += count
        into[step + 1][target] += count
        axes.add_patch(_ribbon(step, start, end, count, colour[source]))
    for number, column in enumerate(columns):
        for value, height in column["heights"].items():
            if height:
                low = floors[number][value]
                axes.add_patch(Rectangle((number - 0.02, low), 0.04, height,
                                         color=colour[value], linewidth=0))  # fmt: skip
                told = number in (0, len(columns) - 1) or not columns[number - 1]["heights"][value]
                text = f"{value}  {height:,}" if told or not narrow else f"{height:,}"
                _name(axes, number, len(columns), low + height / 2, text)
        axes.text(number, -gap, column["date"], ha="center", va="top", color=INK,
                  fontsize=7 if narrow else 9)  # fmt: skip
    axes.set_xlim(-0.45, len(columns) - 0.55)
    axes.set_ylim(-gap * 3, total + gap * len(columns[0]["values"]))


def _name(axes: Axes, number: int, columns: int, height: float, text: str) -> None:
    last = number == columns - 1
    axes.text(number + (0.035 if last else -0.035), height, text, fontsize=9, color=INK,
              ha="left" if last else "right", va="center")  # fmt: skip


def _floors(column: Mapping[str, Any], gap: float) -> dict[str, float]:
    """Where each value's block begins, the first value on top."""
    floors, at = {}, 0.0
    for value in reversed(column["values"]):
        floors[value] = at
        at += column["heights"][value] + (gap if column["heights"][value] else 0)
    return floors


def _ribbon(step: int, start: float, end: float, height: float, colour: str) -> PathPatch:
    left, right, middle = step + 0.02, step + 0.98, step + 0.5
    points = [
        (left, start), (middle, start), (middle, end), (right, end),
        (right, end + height), (middle, end + height), (middle, start + height),
        (left, start + height), (left, start),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    return PathPatch(Path(points, codes), facecolor=colour, alpha=0.35, linewidth=0)


def _layout(
    content: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[tuple[int, str, str, int]]]:
    """Columns (date, values in order, customers of each) and links (column, from, to, customers)
    from the answer's nodes and links."""
    dates = [str(date) for date in content["dates"]]
    values = list(content["values"])
    columns = [
        {"date": date[:10], "values": values, "heights": dict.fromkeys(values, 0)} for date in dates
    ]
    for node in content["nodes"]:
        columns[node["step"]]["heights"][node["value"]] = node["customers"]
    order = {value: place for place, value in enumerate(values)}
    links = [
        (link["step"], link["from"], link["to"], link["customers"]) for link in content["links"]
    ]
    links.sort(key=lambda link: (link[0], -order[link[1]], -order[link[2]]))
    return columns, links
