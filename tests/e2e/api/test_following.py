"""One command can be followed: by its conversation, by its trace, and through the log lines."""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.tokens import Scope
from infra import tracing
from infra.logging import configure
from infra.postgres import connect
from tests.e2e.api.making import customer
from tests.e2e.api.running import WAIT, Client, Product

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
NDJSON = {"Content-Type": "application/x-ndjson"}

Row = tuple[Any, ...]


@pytest.fixture
def recorded(product: Product) -> Callable[[int], Row]:
    """What the log holds beside an event: command, correlation, causation, traceparent."""

    def ask(position: int) -> Row:
        connection = connect(product.database_url, search_path=["log"])
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT command_id::text, correlation_id::text, causation_id::text, traceparent"
                    " FROM events WHERE position = %s",
                    (position,),
                )
                row: Row | None = cursor.fetchone()
                assert row is not None
                return row
        finally:
            connection.close()

    return ask


@pytest.fixture
def traced(product: Product) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Traces are on until it is called for what was traced."""
    exporter = InMemorySpanExporter()
    tracing.configure(None, "crm-api", exporter=exporter)

    def sent() -> list[ReadableSpan]:
        # Answered by the loop when it is through with what it answered before, spans included.
        httpx.get(f"{product.url}/health/live", timeout=WAIT)
        tracing.close()
        return list(exporter.get_finished_spans())

    yield sent
    tracing.close()


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log lines from now on, down to DEBUG."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("json", "debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def made(client: Client, **headers: str) -> httpx.Response:
    response = client.command("/v1/customers", {"name": "ACME"}, headers=headers)
    assert response.status_code == 201, response.text
    return response


# ---- conversations ----


def test_events_belong_to_the_conversation_that_the_client_names(
    admin: Client, recorded: Callable[[int], Row]
) -> None:
    conversation, cause = str(uuid.uuid4()), str(uuid.uuid4())
    answer = made(admin, **{"X-Correlation-ID": conversation, "X-Causation-ID": cause})
    assert answer.headers["x-correlation-id"] == conversation
    command, *rest = recorded(answer.json()["position"])
    assert rest == [conversation, cause, None]
    assert command not in (conversation, cause)


def test_without_a_name_a_conversation_begins(
    admin: Client, recorded: Callable[[int], Row]
) -> None:
    first, second = made(admin), made(admin)
    for answer in (first, second):
        _, conversation, cause, traceparent = recorded(answer.json()["position"])
        assert answer.headers["x-correlation-id"] == conversation
        assert (cause, traceparent) == (None, None)
    assert first.headers["x-correlation-id"] != second.headers["x-correlation-id"]


@pytest.mark.parametrize("name", ["X-Correlation-ID", "X-Causation-ID"])
@pytest.mark.parametrize(
    "value",
    ["", "7", "x" * 36, TRACE, f"{{{uuid.UUID(TRACE)}}}", ", ".join([str(uuid.UUID(TRACE))] * 2)],
)
@pytest.mark.parametrize("path", ["/v1/customers", "/v1/bulk"])
def test_a_conversation_is_named_by_a_uuid(admin: Client, name: str, value: str, path: str) -> None:
    headers = {name: value, "Idempotency-Key": uuid.uuid4().hex, "Content-Type": "application/json"}
    response = admin.post(path, content=b"[]", headers=headers)
    assert response.status_code == 400
    assert response.json()["type"] == "urn:crm-ledger:problem:malformed-header"
    assert name in response.json()["detail"]


def test_a_conversation_is_named_once(admin: Client) -> None:
    doubled = [("X-Correlation-ID", str(uuid.uuid4())) for _ in range(2)]
    headers = [("Idempotency-Key", uuid.uuid4().hex), *doubled]
    response = admin.post("/v1/customers", json={"name": "ACME"}, headers=headers)
    assert response.status_code == 400


def test_a_refusal_names_the_conversation_too(product: Product) -> None:
    headers = {"X-Correlation-ID": str(uuid.uuid4())}
    with product.client(Scope.COMMAND) as client:
        response = client.command(f"/v1/customers/{uuid.uuid4()}/orders", {}, headers=headers)
    assert response.status_code == 422
    assert response.headers["x-correlation-id"] == headers["X-Correlation-ID"]


def test_a_repetition_may_be_of_another_conversation(
    admin: Client, recorded: Callable[[int], Row]
) -> None:
    key = uuid.uuid4().hex
    named = [str(uuid.uuid4()), str(uuid.uuid4())]
    first, again = (
        admin.command("/v1/customers", {"name": "A"}, key=key, headers={"X-Correlation-ID": name})
        for name in named
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert [first.headers["x-correlation-id"], again.headers["x-correlation-id"]] == named
    assert recorded(first.json()["position"])[1] == named[0]


def bulk(client: Client, **headers: str) -> tuple[httpx.Response, list[int]]:
    """Two lines that make a customer each, and their positions."""
    content = b"".join(
        orjson.dumps({"path": "/v1/customers", "key": uuid.uuid4().hex, "body": {"name": "B"}})
        + b"\n"
        for _ in range(2)
    )
    response = client.post("/v1/bulk", content=content, headers={**NDJSON, **headers})
    assert response.status_code == 200, response.text
    answers = [orjson.loads(line) for line in response.content.splitlines()]
    return response, [answer["position"] for answer in answers]


@pytest.mark.parametrize("named", [True, False])
def test_the_lines_of_a_bulk_are_one_conversation(
    admin: Client, recorded: Callable[[int], Row], named: bool
) -> None:
    cause = str(uuid.uuid4())
    headers = {"X-Correlation-ID": str(uuid.uuid4())} if named else {}
    response, positions = bulk(admin, **headers, **{"X-Causation-ID": cause})
    if named:
        assert response.headers["x-correlation-id"] == headers["X-Correlation-ID"]
    rows = [recorded(position) for position in positions]
    assert {row[1] for row in rows} == {response.headers["x-correlation-id"]}
    assert {row[2] for row in rows} == {cause}
    assert len({row[0] for row in rows}) == 2


# ---- traces ----


def test_a_command_carries_on_its_clients_trace_into_the_log(
    admin: Client,
    recorded: Callable[[int], Row],
    traced: Callable[[], list[ReadableSpan]],
) -> None:
    answer = made(admin, **TRACED)
    spans = {span.name: span for span in traced()}
    request, record = spans["POST /v1/customers"], spans["record"]
    assert request.parent is not None
    assert record.parent is not None
    assert f"{request.parent.span_id:016x}" == SPAN
    assert record.parent.span_id == request.context.span_id
    command, conversation, _, traceparent = recorded(answer.json()["position"])
    assert traceparent == f"00-{TRACE}-{record.context.span_id:016x}-01"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/customers",
        "http.response.status_code": 201,
    }
    assert record.attributes == {
        "crm.command_id": command,
        "crm.correlation_id": conversation,
        "crm.position": answer.json()["position"],
        "crm.events": 1,
    }


@pytest.mark.parametrize("traceparent", [None, "garbage", f"00-{'0' * 32}-{SPAN}-01"])
def test_without_a_usable_trace_one_begins(
    admin: Client,
    recorded: Callable[[int], Row],
    traced: Callable[[], list[ReadableSpan]],
    traceparent: str | None,
) -> None:
    answer = made(admin, **({} if traceparent is None else {"traceparent": traceparent}))
    kept = recorded(answer.json()["position"])[3]
    assert tracing.valid(kept)
    [request] = [span for span in traced() if span.name == "POST /v1/customers"]
    assert request.parent is None
    assert kept.startswith(f"00-{request.context.trace_id:032x}-")


def test_two_traces_at_once_are_none(
    admin: Client, traced: Callable[[], list[ReadableSpan]]
) -> None:
    headers = [("Idempotency-Key", uuid.uuid4().hex), *TRACED.items(), *TRACED.items()]
    assert admin.post("/v1/customers", json={"name": "A"}, headers=headers).status_code == 201
    assert TRACE not in {f"{span.context.trace_id:032x}" for span in traced()}


def test_the_lines_of_a_bulk_share_its_span(
    admin: Client,
    recorded: Callable[[int], Row],
    traced: Callable[[], list[ReadableSpan]],
) -> None:
    _, positions = bulk(admin, **TRACED)
    [span] = [span for span in traced() if span.name in ("POST /v1/bulk", "record")]
    assert span.name == "POST /v1/bulk"
    expected = f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert [recorded(position)[3] for position in positions] == [expected] * 2


def test_reads_are_traced_by_route_and_what_machines_ask_is_not(
    product: Product, admin: Client, traced: Callable[[], list[ReadableSpan]]
) -> None:
    admin.get(f"/v1/customers/{customer(admin)}")
    admin.get(f"/v1/customers/{uuid.uuid4()}?name=Zhang")
    admin.get(f"/{uuid.uuid4()}")
    for path in ("/metrics", "/health/live", "/health/ready"):
        httpx.get(f"{product.url}{path}", timeout=WAIT)
    spans = [span for span in traced() if span.kind.name == "SERVER"]
    assert sorted(span.name for span in spans) == [
        "GET",
        "GET /v1/customers/{id}",
        "GET /v1/customers/{id}",
        "POST /v1/customers",
    ]
    assert not any("Zhang" in span.to_json() for span in spans)


def test_traces_that_are_off_leave_nothing_in_the_log(
    admin: Client, recorded: Callable[[int], Row]
) -> None:
    assert recorded(made(admin, **TRACED).json()["position"])[3] is None


# ---- log lines ----


def test_one_line_tells_a_command_by_its_ids(
    admin: Client,
    recorded: Callable[[int], Row],
    lines: Callable[[], list[dict[str, Any]]],
    traced: Callable[[], list[ReadableSpan]],
) -> None:
    answer = made(admin, **TRACED)
    traced()
    command, conversation, *_ = recorded(answer.json()["position"])
    [line] = [line for line in lines() if line.get("correlation_id") == conversation]
    assert (line["event"], line["level"]) == ("command done", "debug")
    assert line["command"] == "register_customer"
    assert line["command_id"] == command
    assert line["trace_id"] == TRACE
    assert line["actor"] == "rep-1"
    assert line["id"] == answer.json()["id"]
    assert line["position"] == answer.json()["position"]
    assert line["ms"] > 0
    assert "ACME" not in json.dumps(line)


def test_a_refused_command_is_told_by_its_rule(
    admin: Client, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    headers = {"X-Correlation-ID": str(uuid.uuid4())}
    response = admin.command(f"/v1/opportunities/{uuid.uuid4()}/suspend", headers=headers)
    assert response.status_code == 404
    [line] = [line for line in lines() if line.get("correlation_id") == headers["X-Correlation-ID"]]
    assert (line["event"], line["error"]) == ("command not done", "OpportunityNotFound")


def test_what_nobody_expected_is_told_with_the_conversation(
    product: Product,
    admin: Client,
    lines: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(product.commands, "_carried_out", broken)
    headers = {"X-Correlation-ID": str(uuid.uuid4())}
    response = admin.command("/v1/customers", {"name": "ACME"}, headers=headers)
    assert response.status_code == 500
    assert response.headers["x-correlation-id"] == headers["X-Correlation-ID"]
    told = [line for line in lines() if line.get("correlation_id") == headers["X-Correlation-ID"]]
    assert ("error", "unexpected error") in {(line["level"], line["event"]) for line in told}
