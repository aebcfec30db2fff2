"""Answers as pictures: when they are asked for, and what is drawn."""

from __future__ import annotations

import asyncio
import struct
import xml.etree.ElementTree as ElementTree
from typing import Any

import httpx
import orjson
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.plots.pictures import DRAWN, WAITING, Pictures, drawn

TIMES = {
    "as_of": "2026-03-01T00:00:00Z",
    "known_at": 12,
    "position": 12,
    "parked": 0,
    "definition": {"forecast": "1"},
}


def money(value: object) -> dict[str, str]:
    return {"value": str(value), "currency": "CNY"}


def interval(level: str, low: int, high: int) -> dict[str, Any]:
    return {"level": level, "low": money(low), "high": money(high)}


def campaign(number: int, credit: int) -> dict[str, Any]:
    return {
        "campaign_id": f"c{number}",
        "name": f"Campaign {number}",
        "credit": money(credit),
        "cost": money(50) if number else None,
        "return": None,
    }


FUNNEL = {
    "currency": "CNY",
    "stages": [
        {"stage": "prospect 潜在客户", "deals": 5, "amount": money(500), "weighted": money(180)},
        {"stage": "$bid$", "deals": 1, "amount": money(0), "weighted": money(0)},
    ],
    **TIMES,
}
FORECAST = {
    "currency": "CNY",
    "timing": "half_elapsed",
    "by": "relative",
    "months": [
        {
            "month": number,
            "from": f"2026-0{number}-01",
            "to": f"2026-0{number + 1}-01",
            "expected": money(180),
            "sd": money(60),
            "median": money(200),
            "intervals": [
                interval("0.5", 120, 200), interval("0.8", 80, 260), interval("0.95", 0, 400)
            ],
        }
        for number in (1, 2, 3)
    ],
    **TIMES,
}  # fmt: skip
LIFECYCLE = {
    "classification": "type",
    "customers": 3,
    "distribution": [{"value": "prospect", "customers": 2}, {"value": "lost", "customers": 1}],
    **TIMES,
}
FLOWS = {
    "classification": "type",
    "dates": ["2026-01-01", "2026-02-01"],
    "values": ["prospect", "lost"],
    "nodes": [
        {"step": 0, "value": "prospect", "customers": 3},
        {"step": 0, "value": "lost", "customers": 0},
        {"step": 1, "value": "prospect", "customers": 2},
        {"step": 1, "value": "lost", "customers": 1},
    ],
    "links": [
        {"step": 0, "from": "prospect", "to": "prospect", "customers": 2},
        {"step": 0, "from": "prospect", "to": "lost", "customers": 1},
    ],
    **TIMES,
}
ATTRIBUTION = {
    "model": "time_decay",
    "group": "campaign",
    "currency": "CNY",
    "revenue": money(100),
    "unattributed": money(10),
    "campaigns": [campaign(0, 60), campaign(1, 30)],
    **TIMES,
}
COMPARISON = {
    "group": "campaign",
    "currency": "CNY",
    "models": [
        {"model": name, "unattributed": money(10), "campaigns": [campaign(0, 60), campaign(1, 30)]}
        for name in ("first", "last", "markov")
    ],
    **TIMES,
}
FULL: dict[str, dict[str, Any]] = {
    "/v1/funnel": FUNNEL,
    "/v1/forecast": FORECAST,
    "/v1/lifecycle": LIFECYCLE,
    "/v1/lifecycle/flows": FLOWS,
    "/v1/attribution": ATTRIBUTION,
    "/v1/attribution/comparison": COMPARISON,
}
NOTHING: dict[str, dict[str, Any]] = {
    "/v1/funnel": {**FUNNEL, "stages": []},
    "/v1/forecast": {
        **FORECAST,
        "months": [
            {**month, "expected": money(0), "intervals": [interval("0.95", 0, 0)]}
            for month in FORECAST["months"]
        ],
    },
    "/v1/lifecycle": {
        **LIFECYCLE,
        "customers": 0,
        "distribution": [{"value": "prospect", "customers": 0}],
    },
    "/v1/lifecycle/flows": {
        **FLOWS,
        "nodes": [{**node, "customers": 0} for node in FLOWS["nodes"]],
        "links": [],
    },
    "/v1/attribution": {
        **ATTRIBUTION,
        "revenue": money(0),
        "unattributed": money(0),
        "campaigns": [],
    },
    "/v1/attribution/comparison": {
        **COMPARISON,
        "models": [{"model": "first", "unattributed": money(0), "campaigns": []}],
    },
}


def ask(
    answers: dict[str, dict[str, Any]], path: str, accept: str | None = None, status: int = 200
) -> httpx.Response:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        content = orjson.dumps(answers[scope["path"]])
        response = Response(content, status_code=status, media_type="application/json")
        await response(scope, receive, send)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(Pictures(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers={"Accept": accept} if accept else {})

    return asyncio.run(get())


def texts(svg: bytes) -> str:
    root = ElementTree.fromstring(svg)
    return "\n".join("".join(element.itertext()) for element in root.iter() if element.text)


def own_texts(svg: bytes) -> list[str]:
    """Each text of the picture once."""
    parts = (element.text for element in ElementTree.fromstring(svg).iter())
    return [" ".join(part.split()) for part in parts if part and part.strip()]


@pytest.mark.parametrize("path", sorted(DRAWN))
def test_every_answer_becomes_a_png_of_some_size(path: str) -> None:
    picture = ask(FULL, f"{path}.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture.content[16:24])
    assert width > 1000
    assert height > 200


@pytest.mark.parametrize("path", sorted(DRAWN))
def test_an_empty_answer_is_a_picture_that_says_so(path: str) -> None:
    assert "nothing to show" in texts(ask(NOTHING, f"{path}.svg").content)


@pytest.mark.parametrize("path", sorted(DRAWN))
def test_a_picture_says_what_it_reflects(path: str) -> None:
    shown = texts(ask(FULL, f"{path}.svg").content)
    assert "as of 2026-03-01T00:00:00Z · known at position 12 · definition forecast 1" in shown


def test_names_are_shown_as_they_are() -> None:
    shown = texts(ask(FULL, "/v1/funnel.svg").content)
    assert "prospect 潜在客户" in shown
    assert "$bid$" in shown
    assert "500 in 5 deals" in shown
    assert "0 in 1 deal\n" in shown + "\n"


def test_the_forecast_draws_each_interval_once_a_month() -> None:
    shown = texts(ask(FULL, "/v1/forecast.svg").content)
    assert all(level in shown for level in ("50 %", "80 %", "95 %", "median"))


def test_campaigns_without_a_name_go_by_their_id() -> None:
    nameless = {
        **ATTRIBUTION,
        "campaigns": [{**campaign(0, 60), "name": None}],
    }
    assert "c0" in texts(ask({"/v1/attribution": nameless}, "/v1/attribution.svg").content)


def test_what_there_is_no_room_for_is_told() -> None:
    many = [campaign(number, 1000 - number) for number in range(40)]
    revenue = money(10 + sum(1000 - number for number in range(40)))
    credits = {**ATTRIBUTION, "revenue": revenue, "campaigns": many, "group": "size_band"}
    shown = own_texts(drawn("/v1/attribution", credits, "image/svg+xml"))
    assert "Won revenue by size band (time decay)" in shown
    assert "25 others together" in shown
    assert "24.3k" in shown  # 24,325 = 25 x 973, the mean of 961 to 985
    models = [{"model": "first", "unattributed": money(10), "campaigns": many}]
    comparison = {**COMPARISON, "models": models}
    shown = own_texts(drawn("/v1/attribution/comparison", comparison, "image/svg+xml"))
    assert "CNY · the first 15 of 40 · unattributed: 10" in shown


@pytest.mark.parametrize(("months", "named"), [(3, 3), (24, 24), (25, 13), (60, 20)])
@pytest.mark.parametrize("by", ["relative", "calendar"])
def test_months_are_named_as_far_as_there_is_room(by: str, months: int, named: int) -> None:
    month = {**FORECAST["months"][0], "from": "2031-01-01", "to": "2031-02-01"}
    forecast = {**FORECAST, "by": by, "months": [month] * months}
    shown = own_texts(drawn("/v1/forecast", forecast, "image/svg+xml"))
    assert sum("2031-0" in text for text in shown) == named


def test_many_dates_leave_room_for_a_name_at_each_end() -> None:
    flows = {
        **FLOWS,
        "dates": [f"2026-0{number}-01" for number in range(1, 7)],
        "nodes": [
            {"step": step, "value": value, "customers": count}
            for step in range(6)
            for value, count in (("prospect", 3 if step < 3 else 1), ("lost", 0 if step < 3 else 2))
        ],
        "links": [],
    }
    shown = own_texts(drawn("/v1/lifecycle/flows", flows, "image/svg+xml"))
    names = [text for text in shown if text.startswith(("prospect", "lost"))]
    assert sorted(names) == ["lost 2", "lost 2", "prospect 1", "prospect 3"]


@pytest.mark.parametrize("path", ["/v1/funnel", "/v1/attribution"])
def test_amounts_in_other_currencies_are_told_below(path: str) -> None:
    beside = [
        {"deals": 1, "amount": {"value": "1500", "currency": code}} for code in ("EUR", "USD")
    ]
    shown = texts(drawn(path, {**FULL[path], "other_currencies": beside}, "image/svg+xml"))
    assert "not in it, in other currencies: 1.5k EUR, 1.5k USD" in shown
    many = drawn(path, {**FULL[path], "other_currencies": beside * 5}, "image/svg+xml")
    (told,) = (text for text in own_texts(many) if "currencies" in text)
    assert told.count("1.5k") == 8
    assert told.endswith("1.5k USD, …")


def test_the_same_answer_is_the_same_picture() -> None:
    first, second = (ask(FULL, "/v1/lifecycle/flows.svg").content for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json, image/png", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/svg+xml, application/json;q=0.5", "image/svg+xml"),
        ("image/png;q=0.2, image/svg+xml;q=0.9", "image/svg+xml"),
        ("image/png;q=nonsense", "application/json"),
        ("text/html,image/png,image/svg+xml,*/*;q=0.8", "application/json"),
    ],
)
def test_the_accept_header_decides(accept: str | None, kind: str) -> None:
    assert ask(FULL, "/v1/funnel", accept).headers["content-type"] == kind


def test_an_answer_that_could_be_a_picture_varies_by_accept() -> None:
    for accept in ("application/json", "image/png"):
        assert ask(FULL, "/v1/funnel", accept).headers["vary"] == "Accept"


def test_a_problem_stays_a_problem() -> None:
    refused = ask({"/v1/funnel": {"title": "no"}}, "/v1/funnel.png", status=404)
    assert refused.status_code == 404
    assert refused.json() == {"title": "no"}


def test_other_paths_are_left_alone() -> None:
    answers = {"/v1/customers": {"items": []}}
    assert ask(answers, "/v1/customers", "image/png").json() == {"items": []}


def test_too_many_pictures_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(orjson.dumps(FUNNEL))(scope, receive, send)

    async def crowd() -> list[object]:
        transport = httpx.ASGITransport(Pictures(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = (client.get("/v1/funnel.png") for _ in range(WAITING + 1))
            return await asyncio.gather(*asked, return_exceptions=True)

    monkeypatch.setattr("api.plots.pictures.drawn", lambda *_: b"drawn")
    refusals = [type(one).__name__ for one in asyncio.run(crowd()) if isinstance(one, Exception)]
    assert refusals == ["Unavailable"]


@pytest.mark.parametrize("path", ["/v1/funnel", "/v1/attribution", "/v1/attribution/comparison"])
@pytest.mark.parametrize(
    "name", ["a\x01b", "a\x1b[2Jb", "a\ufffeb", "a\uffffb", "a\x7fb", "a\ud800b"], ids=ascii
)
def test_a_name_with_control_characters_is_well_formed_xml(path: str, name: str) -> None:
    earners = {"campaigns": [{**campaign(0, 60), "name": name}]}
    answers = {
        "/v1/funnel": {**FUNNEL, "stages": [{**FUNNEL["stages"][0], "stage": name}]},
        "/v1/attribution": {**ATTRIBUTION, **earners},
        "/v1/attribution/comparison": {
            **COMPARISON,
            "models": [{"model": "first", "unattributed": money(10), **earners}],
        },
    }
    figure = drawn(path, answers[path], "image/svg+xml")
    assert "a\ufffd" in texts(figure)


def test_the_group_of_no_value_is_not_the_one_called_none() -> None:
    groups = [{"value": None, "credit": money(70)}, {"value": "none", "credit": money(20)}]
    model = {"model": "first", "unattributed": money(10), "campaigns": [], "groups": groups}
    path = "/v1/attribution/comparison"
    picture = drawn(path, {**COMPARISON, "models": [model]}, "image/svg+xml")
    assert texts(picture).split("\n").count("none") == 2
