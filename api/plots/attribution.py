"""Pictures of what campaigns earned, by one model and by all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.figure import Figure

from api.plots.paper import COLOURS, GRID, WIDTH, amount, money_axis, nothing, rows, short

MOST: Final = 15
_MARKERS = "osD^vP*Xh"


def credits(figure: Figure, content: Mapping[str, Any]) -> None:
    """The credit of each campaign or group beside its cost, and what is unattributed."""
    by = str(content["group"]).replace("_", " ")
    title = f"Won revenue by {by} ({content['model'].replace('_', ' ')})"
    earners = _earners(content)
    # One more takes no more room than a row that says there is one more.
    campaigns = earners[: MOST if len(earners) > MOST + 1 else MOST + 1]
    rest = earners[len(campaigns) :]
    if not amount(content["revenue"]):
        nothing(figure, title)
        return
    names = [_name(campaign) for campaign in campaigns]
    values = [amount(campaign["credit"]) for campaign in campaigns]
    if rest:
        names.append(f"{len(rest):,} others together")
        values.append(sum(amount(campaign["credit"]) for campaign in rest))
    names.append("unattributed")
    values.append(amount(content["unattributed"]))
    figure.set_size_inches(WIDTH, 1.8 + 0.42 * len(names))
    axes = figure.subplots()
    axes.set_title(title)
    rows(axes, names)
    colours = [COLOURS[0]] * (len(names) - 1) + ["#b8c9dc"]
    axes.barh(range(len(names)), values, height=0.6, color=colours, label="credit")
    costs = {place: amount(c["cost"]) for place, c in enumerate(campaigns) if c.get("cost")}
    if costs:
        axes.plot(list(costs.values()), list(costs), linestyle="", marker="|", markersize=15,
                  markeredgewidth=2.5, color=COLOURS[1], label="cost")  # fmt: skip
        figure.legend(loc="outside upper right", ncols=2, fontsize=9)
    for place, value in enumerate(values):
        end = max(value, costs.get(place, 0.0))
        axes.annotate(short(value), (end, place), (6, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    axes.set_xlim(0, max(*values, *costs.values(), 1.0) * 1.12)
    money_axis(axes, content["currency"])


def comparison(figure: Figure, content: Mapping[str, Any]) -> None:
    """A row for each campaign, on it a mark for what each model gives it; beside the currency what
    they leave unattributed."""
    title = f"What the models give each {str(content['group']).replace('_', ' ')}"
    models: list[str] = [model["model"] for model in content["models"]]
    by_campaign: dict[tuple[str, ...], dict[str, float]] = {}
    names: dict[tuple[str, ...], str] = {}
    for model in content["models"]:
        for earner in _earners(model):
            key = _key(earner)
            names[key] = _name(earner)
            by_campaign.setdefault(key, {})[model["model"]] = amount(earner["credit"])
        by_campaign.setdefault((), {})[model["model"]] = amount(model["unattributed"])
    earned = sorted((key for key in by_campaign if key),
                    key=lambda key: (-max(by_campaign[key].values()), key))  # fmt: skip
    ranked = earned[:MOST]
    if not any(value for one in by_campaign.values() for value in one.values()):
        nothing(figure, title)
        return
    keys = ranked or [()]
    figure.set_size_inches(WIDTH, 2.2 + 0.45 * len(keys))
    axes = figure.subplots()
    axes.set_title(title)
    rows(axes, [names.get(key, "unattributed") for key in keys])
    note = ""
    if ranked:  # a row of its own would leave the others little room
        rest = sorted(by_campaign[()].values())
        told = short(rest[0]) if rest[0] == rest[-1] else f"{short(rest[0])} to {short(rest[-1])}"
        note = f" · unattributed: {told}"
        if len(earned) > len(ranked):
            note = f" · the first {len(ranked)} of {len(earned):,}{note}"
    for place, key in enumerate(keys):
        found = by_campaign[key].values()
        axes.hlines(place, min(found), max(found), color=GRID, linewidth=5, zorder=1)
    step = 0.5 / max(len(models) - 1, 1)
    for number, model in enumerate(models):
        points = [(by_campaign[key][model], place - 0.25 + step * number)
                  for place, key in enumerate(keys) if model in by_campaign[key]]  # fmt: skip
        axes.plot(*zip(*points, strict=True), linestyle="", zorder=2, markersize=6,
                  marker=_MARKERS[number % len(_MARKERS)], color=COLOURS[number % len(COLOURS)],
                  label=model.replace("_", " "))  # fmt: skip
    money_axis(axes, content["currency"] + note)
    axes.set_xlim(left=-0.015 * axes.get_xlim()[1])  # room for marks at 0
    figure.legend(loc="outside upper center", ncols=5, fontsize=9)


def _earners(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The campaigns, or the groups of them that were asked for, the greatest credit first."""
    groups: list[Mapping[str, Any]] = content.get("groups") or []
    if not groups:
        return list(content["campaigns"])
    return sorted(groups, key=lambda group: -amount(group["credit"]))


def _key(earner: Mapping[str, Any]) -> tuple[str, ...]:
    """Tells campaigns, or groups, apart: the group of no value is not one that is called none."""
    told = earner["campaign_id"] if "campaign_id" in earner else earner["value"]
    return ("none",) if told is None else ("some", str(told))


def _name(earner: Mapping[str, Any]) -> str:
    if "campaign_id" in earner:
        return str(earner.get("name") or earner["campaign_id"])
    return "none" if earner["value"] is None else str(earner["value"])
