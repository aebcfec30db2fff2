"""The side of `infra.tracing` that speaks to OpenTelemetry; imported only where that is asked for.

The SDK's own environment variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_…)
are heeded. Its global tracer is not set, so that no library writes spans unasked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from infra.tracing import Attributes, Kind, Span, valid

EXPORT_SECONDS = 3.0
"""Longest time for one batch; as long again, at most, is waited at the end of the process."""

_PROGRAM = "crm-ledger"
_PATH = "/v1/traces"
_KINDS = {kind.name.lower(): kind for kind in trace.SpanKind}
_SAMPLED = int(trace.TraceFlags.SAMPLED)


def to_endpoint(endpoint: str) -> SpanExporter:
    """Sends to a receiver's address, as http://127.0.0.1:4318."""
    address = endpoint.rstrip("/")
    if not address.endswith(_PATH):
        address += _PATH
    return OTLPSpanExporter(endpoint=address, timeout=EXPORT_SECONDS)


class Spans:
    """The spans of this process, sent in batches by a thread of their own."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        self._exporter = _Bounded(exporter)
        described = {"service.name": service, "service.version": version(_PROGRAM)}
        self._provider = TracerProvider(resource=Resource.create(described), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer(_PROGRAM)

    def close(self) -> None:
        """Sends what waits, for so long as a receiver that is away may take."""
        self._exporter.until = time.monotonic() + EXPORT_SECONDS
        self._provider.shutdown()

    def current(self) -> str | None:
        """The traceparent of the present span."""
        here = trace.get_current_span().get_span_context()
        if not here.is_valid:
            return None
        return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags & _SAMPLED:02x}"

    def span(
        self, name: str, parent: str | None, attributes: Attributes | None, kind: Kind
    ) -> Span:
        """A span that begins when it is entered."""
        return _Recording(self._tracer, name, parent, attributes, kind)

    def finished(
        self,
        name: str,
        parents: Iterable[str | None],
        began: float,
        attributes: Attributes | None,
        kind: Kind,
    ) -> None:
        """A span that is over, for each of several traces."""
        start = int(began * 1_000_000_000)
        for parent in dict.fromkeys(parents):
            if parent is not None and valid(parent) and _flags(parent) & _SAMPLED:
                self._tracer.start_span(
                    name, _within(parent), _KINDS[kind], attributes, start_time=start
                ).end()


class _Recording(Span):
    __slots__ = ("_attributes", "_kind", "_name", "_parent", "_span", "_token", "_tracer")

    def __init__(
        self,
        tracer: trace.Tracer,
        name: str,
        parent: str | None,
        attributes: Attributes | None,
        kind: Kind,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._parent = parent
        self._attributes = attributes
        self._kind = kind

    def __enter__(self) -> Self:
        self._span = self._tracer.start_span(
            self._name,
            None if self._parent is None else _within(self._parent),
            _KINDS[self._kind],
            self._attributes,
        )
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.fail(type(error).__name__)
        context.detach(self._token)
        self._span.end()

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, reason))


class _Bounded(SpanExporter):
    """Hands on until a time, if one is set, so that a full queue holds up nobody's end."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.until: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.until is not None and time.monotonic() > self.until:
            return SpanExportResult.FAILURE
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _flags(traceparent: str) -> int:
    return int(traceparent[53:55], 16)


def _within(traceparent: str) -> Context:
    """A context whose present span is the one that the text names; an empty one if it is bad."""
    if not valid(traceparent):
        return Context()
    far = trace.SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(_flags(traceparent) & _SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(far), Context())
