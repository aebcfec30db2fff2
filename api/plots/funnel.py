"""Pictures of the funnel and of its forecast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from matplotlib.figure import Figure

from api.plots.paper import COLOURS, INK, WIDTH, amount, money_axis, nothing, rows, short

FEW: Final = 8
"""Up to so many months each has room for a name of two lines; above, for a slanted one."""
MOST: Final = 24
"""Names of months; of more months only every second, third, … is named."""


def funnel(figure: Figure, content: Mapping[str, Any]) -> None:
    """The open amount of each stage, and what of it is expected."""
    stages = content["stages"]
    title = "Open deals by stage"
    if not stages:
        nothing(figure, title)
        return
    figure.set_size_inches(WIDTH, 1.8 + 0.55 * len(stages))
    axes = figure.subplots()
    axes.set_title(title)
    rows(axes, [stage["stage"] for stage in stages])
    places = range(len(stages))
    open_amounts = [amount(stage["amount"]) for stage in stages]
    weighted = [amount(stage["weighted"]) for stage in stages]
    axes.barh(places, open_amounts, height=0.62, color="#b8c9dc", label="open amount")
    axes.barh(places, weighted, height=0.34, color=COLOURS[0], label="× chance to win")
    for place, (stage, value) in enumerate(zip(stages, open_amounts, strict=True)):
        deals = stage["deals"]
        axes.annotate(
            f"{short(value)} in {deals:,} deal{'' if deals == 1 else 's'}",
            (value, place), (6, 0), textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_xlim(0, max(*open_amounts, 1.0) * 1.25)
    money_axis(axes, content["currency"])
    axes.legend(loc="lower right", fontsize=9)


def forecast(figure: Figure, content: Mapping[str, Any]) -> None:
    """Each month's expected income within its intervals of 50, 80 and 95 per cent."""
    months = content["months"]
    title = f"Expected income by month ({content['timing'].replace('_', ' ')})"
    if not any(amount(part) for part in _parts(months)):
        nothing(figure, title)
        return
    axes = figure.subplots()
    axes.set_title(title)
    places = list(range(len(months)))
    expected = [amount(month["expected"]) for month in months]
    axes.bar(places, expected, width=0.62, color="#b8c9dc", label="expected")
    scale = min(1.0, 30 / len(months))
    for level, width in ((95, 1.6), (80, 4.5), (50, 9.0)):
        bounds = [_interval(month, level) for month in months]
        known = [(place, *bound) for place, bound in zip(places, bounds, strict=True) if bound]
        if known:
            where, low, high = zip(*known, strict=True)
            axes.vlines(
                where, low, high, color=COLOURS[0], linewidth=width * scale,
                alpha={95: 0.9, 80: 0.55, 50: 0.9}[level], label=f"{level} %",
            )  # fmt: skip
    medians = [(p, amount(m["median"])) for p, m in zip(places, months, strict=True)
               if m.get("median")]  # fmt: skip
    if medians:
        axes.plot(*zip(*medians, strict=True), linestyle="", marker="_",
                  markersize=16 * scale,
                  markeredgewidth=2, color=INK, label="median")  # fmt: skip
    few = len(months) <= FEW
    every = slice(None, None, 1 + (len(months) - 1) // MOST)
    names = [_month(month, content["by"], few) for month in months[every]]
    axes.set_xticks(places[every], names, fontsize=9)
    if not few:
        for name in axes.get_xticklabels():
            name.set(rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)  # room for the legend
    money_axis(axes, content["currency"], which="y")
    axes.legend(loc="upper right", ncols=5, fontsize=9)


def _parts(months: list[Any]) -> Iterator[Mapping[str, str]]:
    """All that is drawn of them."""
    for month in months:
        yield month["expected"]
        for interval in month.get("intervals") or ():
            yield interval["high"]


def _month(month: Mapping[str, Any], by: str, few: bool) -> str:
    if by == "calendar":
        return str(month["from"])[:7]
    return f"{month['month']}\nto {month['to']}" if few else f"to {month['to']}"


def _interval(month: Mapping[str, Any], level: int) -> tuple[float, float] | None:
    for interval in month.get("intervals") or ():
        if int(float(interval["level"]) * (100 if float(interval["level"]) <= 1 else 1)) == level:
            return amount(interval["low"]), amount(interval["high"])
    return None
