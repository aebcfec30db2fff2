"""Spans that carry on what a client or another process began, or nothing at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra import tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure(None, "crm-test", exporter=exporter)
    yield exporter
    tracing.close()


def _sent(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    tracing.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_without_an_endpoint_nothing_is_traced_nor_imported() -> None:
    program = """
import sys
from infra import tracing
tracing.configure(None, "crm-test")
with tracing.span("a", "00-" + "1" * 32 + "-" + "2" * 16 + "-01") as span:
    span.note({"a": 1})
    span.rename("b")
    span.fail("Error")
    assert tracing.current() is None and tracing.trace_id() is None
tracing.finished("c", ["00-" + "1" * 32 + "-" + "2" * 16 + "-01"], 0.0)
assert not tracing.enabled()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        (SAMPLED, True),
        (NOT_SAMPLED, True),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
        (f"cc-{TRACE}-{SPAN}-01.what", False),
        (f"00-{TRACE}-{SPAN}-01-what-comes-later", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE[1:]}-{SPAN}-01", False),
        (f" {SAMPLED}", False),
        (f"{SAMPLED}\n", False),
        (f"00-{TRACE}-{SPAN}", False),
        (f"00-{'٣' * 32}-{SPAN}-01", False),
        ("", False),
    ],
)
def test_a_traceparent_is_as_the_standard_says(traceparent: str, valid: bool) -> None:
    assert tracing.valid(traceparent) is valid


def test_a_span_carries_on_its_parents_trace(exporter: InMemorySpanExporter) -> None:
    with tracing.span("outer", SAMPLED, {"crm.events": 2}, kind="server") as span:
        outer = tracing.current()
        assert tracing.trace_id() == TRACE
        with tracing.span("inner"):
            assert tracing.trace_id() == TRACE
            assert tracing.current() != outer
        assert tracing.current() == outer
        span.note({"crm.position": 7})
        span.rename("POST /v1/customers")
    assert tracing.current() is None
    sent = _sent(exporter)
    outer_sent, inner_sent = sent["POST /v1/customers"], sent["inner"]
    assert outer_sent.parent is not None
    assert inner_sent.parent is not None
    assert f"{outer_sent.parent.span_id:016x}" == SPAN
    assert inner_sent.parent.span_id == outer_sent.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in sent.values()} == {TRACE}
    assert outer_sent.attributes == {"crm.events": 2, "crm.position": 7}
    assert outer_sent.kind.name == "SERVER"
    assert outer_sent.resource.attributes["service.name"] == "crm-test"


def test_what_travels_names_the_span_itself(exporter: InMemorySpanExporter) -> None:
    with tracing.span("here", SAMPLED):
        travels = tracing.current()
    assert travels is not None
    assert tracing.valid(travels)
    here = _sent(exporter)["here"].context
    assert travels == f"00-{TRACE}-{here.span_id:016x}-01"


@pytest.mark.parametrize("parent", [None, "", "garbage", f"ff-{TRACE}-{SPAN}-01"])
def test_without_a_usable_parent_a_trace_begins(
    exporter: InMemorySpanExporter, parent: str | None
) -> None:
    with tracing.span("here", parent):
        assert tracing.trace_id() not in (None, TRACE)
    assert _sent(exporter)["here"].parent is None


def test_a_malformed_parent_does_not_join_the_present_trace(exporter: InMemorySpanExporter) -> None:
    with tracing.span("outer"), tracing.span("inner", "garbage"):
        pass
    assert _sent(exporter)["inner"].parent is None


def test_a_trace_that_is_not_kept_stays_so_and_travels_on(exporter: InMemorySpanExporter) -> None:
    with tracing.span("here", NOT_SAMPLED):
        travels = tracing.current()
        assert tracing.trace_id() == TRACE
        tracing.finished("later", [travels], time.time())
    assert travels is not None
    assert travels.startswith(f"00-{TRACE}-")
    assert travels.endswith("-00")
    assert _sent(exporter) == {}


def test_an_error_is_told_by_its_class_not_by_its_text(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="Zhang San"), tracing.span("here"):
        raise ValueError("Zhang San")
    sent = _sent(exporter)["here"]
    assert not sent.status.is_ok
    assert sent.status.description == "ValueError"
    assert "Zhang" not in sent.to_json()


def test_a_batch_is_told_to_each_of_its_traces_once(exporter: InMemorySpanExporter) -> None:
    other = f"00-{'a' * 32}-{'b' * 16}-01"
    parents = [SAMPLED, other, None, SAMPLED, "garbage", f"00-{'c' * 32}-{SPAN}-00"]
    began = time.time() - 1.0
    tracing.finished("project funnel", parents, began, {"crm.events": 6})
    tracing.close()
    spans = exporter.get_finished_spans()
    assert [f"{span.context.trace_id:032x}" for span in spans] == [TRACE, "a" * 32]
    for span in spans:
        assert span.start_time == int(began * 1_000_000_000)
        assert span.end_time is not None
        assert span.end_time >= span.start_time + 1_000_000_000
        assert span.kind.name == "CONSUMER"
        assert span.attributes == {"crm.events": 6}


class _Receiver(BaseHTTPRequestHandler):
    """Understands OTLP over HTTP just so far."""

    received: list[tuple[str, ExportTraceServiceRequest]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    _Receiver.received = []
    with HTTPServer(("127.0.0.1", 0), _Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ending", ["", "/", "/v1/traces"])
def test_spans_reach_a_receiver_over_http(receiver: HTTPServer, ending: str) -> None:
    tracing.configure(f"http://127.0.0.1:{receiver.server_port}{ending}", "crm-relay")
    assert tracing.enabled()
    with tracing.span("publish", SAMPLED):
        pass
    tracing.close()
    [(path, request)] = _Receiver.received
    assert path == "/v1/traces"
    [resource] = request.resource_spans
    described = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert described["service.name"] == "crm-relay"
    [span] = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("publish", TRACE, SPAN)


def test_a_receiver_that_is_away_costs_spans_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.otel.EXPORT_SECONDS", 0.1)
    tracing.configure("http://127.0.0.1:1", "crm-test")
    for _ in range(2_000):
        with tracing.span("lost"):
            pass
    tracing.close()
    assert not tracing.enabled()
