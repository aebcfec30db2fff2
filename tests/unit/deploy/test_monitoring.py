"""Alert rules and dashboard: their expressions parse, and ask for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import Counter, Gauge, Histogram, ProcessCollector

from api.metrics import Metrics
from infra.metrics import WorkerMetrics
from tests.unit.deploy.checked import DEPLOY, documents, parse_command, unknown_settings

(RULE_FILE,) = documents("prometheus", "alerts.yaml")
RULES = {rule["alert"]: rule for group in RULE_FILE["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((DEPLOY / "grafana" / "crm-ledger.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
EXPRESSIONS = {
    **{alert: rule["expr"] for alert, rule in RULES.items()},
    **{
        f"{title}, {target['refId']}": target["expr"]
        for title, panel in PANELS.items()
        for target in panel["targets"]
    },
}


def exported() -> dict[str, set[str]]:
    """What can be scraped, by name: the labels. Includes what Prometheus itself adds."""
    found = {"up": set[str]()}
    for metric in (
        *vars(WorkerMetrics()).values(),
        *vars(Metrics()).values(),
    ):
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        labels = set(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{metric._name}_total"] = labels
        elif isinstance(metric, Histogram):
            found |= {f"{metric._name}_{end}": labels for end in ("count", "sum")}
            found[f"{metric._name}_bucket"] = labels | {"le"}
        else:
            found.setdefault(metric._name, set()).update(labels)
    for one in ProcessCollector(registry=None).collect():
        found[one.name] = set()
    return {name: labels | {"job", "instance"} for name, labels in found.items()}


def parts(expression: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for argument in getattr(expression, "args", None) or []:
        yield from parts(argument)


def parsed(expression: str) -> Any:
    """With Grafana's variables as they may come."""
    text = expression.replace("$__rate_interval", "5m").replace("$projection", "funnel")
    return promql_parser.parse(text)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(name: str) -> None:
    known = exported()
    for part in parts(parsed(EXPRESSIONS[name])):
        if isinstance(part, promql_parser.VectorSelector):
            asked = str(part.name)
            assert asked in known
            assert {matcher.name for matcher in part.matchers.matchers} <= known[asked]
        elif isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            inside = set().union(
                *(
                    known[str(one.name)]
                    for one in parts(part.expr)
                    if isinstance(one, promql_parser.VectorSelector)
                )
            )
            assert set(part.modifier.labels) <= inside


def test_every_metric_of_the_workers_is_on_the_dashboard() -> None:
    shown = {
        part.name
        for name, expression in EXPRESSIONS.items()
        if name not in RULES
        for part in parts(parsed(expression))
        if isinstance(part, promql_parser.VectorSelector)
    }
    ours = {name for name in exported() if not name.startswith(("process_", "crm_http_"))}
    assert ours - {"up"} <= shown


def test_the_rule_file_has_the_form_that_prometheus_reads() -> None:
    assert set(RULE_FILE) == {"groups"}
    for group in RULE_FILE["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
        assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
    for alert, rule in RULES.items():
        assert set(rule) <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
        assert re.fullmatch(r"Crm[A-Za-z]+", alert)
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_tells_labels_and_commands_that_there_are(alert: str) -> None:
    rule = RULES[alert]
    text = " ".join(rule["annotations"].values())
    kept: set[str] = set()
    known = exported()
    tree = parsed(rule["expr"])
    aggregates = [part for part in parts(tree) if isinstance(part, promql_parser.AggregateExpr)]
    if aggregates:
        modifier = aggregates[0].modifier
        kept = set(modifier.labels) if modifier is not None else set()
    else:
        for part in parts(tree):
            if isinstance(part, promql_parser.VectorSelector):
                kept |= known[str(part.name)]
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept
    assert re.findall(r"\{\{(.*?)\}\}", text) == re.findall(
        r"\{\{( \$(?:value|labels\.\w+)(?: \| \w+)? )\}\}", text
    )
    for command in re.findall(r"\bcrm ([a-z]+)", text):
        arguments = ["funnel"] if command in ("rebuild", "parked", "project") else []
        assert parse_command([command, *arguments]) == command
    assert unknown_settings(text) == set()


def test_the_dashboard_has_the_form_that_grafana_reads() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(PANELS) == sum(panel["type"] != "row" for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    for panel in PANELS.values():
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables
    assert DASHBOARD["uid"] == "crm-ledger"
