"""Traces that follow one command through all processes.

Off unless an endpoint is configured: then OpenTelemetry is not even imported, and a span costs as
much as a call. What belongs together is told by W3C `traceparent` texts, which travel in requests,
in the log's rows and in Kafka's headers; `tracestate` is not kept. Whoever names a span or gives
it attributes puts ids, counts and names of routes there, never a value that a client sent.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from infra.otel import Spans

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["internal", "server", "client", "producer", "consumer"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

_spans: Spans | None = None


def configure(endpoint: str | None, service: str, *, exporter: SpanExporter | None = None) -> None:
    """Sends this process's spans to `endpoint` (OTLP over HTTP) from now on; without it, nowhere.

    `service` names the process, as crm-relay. A trace that a client began is kept if the client
    says so, one that begins here always, unless OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say
    otherwise. A receiver that is away costs spans, nothing else. `exporter` takes the place of
    the endpoint.
    """
    global _spans
    close()
    if endpoint is not None or exporter is not None:
        from infra.otel import Spans, to_endpoint

        _spans = Spans(service, to_endpoint(str(endpoint)) if exporter is None else exporter)


def close() -> None:
    """Sends what waits, for some seconds at most, and is off from then on.

    Without it, the end of the process does as much.
    """
    global _spans
    former, _spans = _spans, None
    if former is not None:
        former.close()


def enabled() -> bool:
    """Whether spans are sent anywhere."""
    return _spans is not None


def valid(traceparent: str) -> bool:
    """Whether it is a W3C traceparent, of this or a later version of that standard."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return (
        match is not None
        and match[1] != "ff"
        and match[2] != _NO_TRACE
        and match[3] != _NO_SPAN
        and (match[4] is None or match[1] != "00")
    )


def current() -> str | None:
    """The traceparent of the present span, for whoever carries on what it began; none if off."""
    return None if _spans is None else _spans.current()


def trace_id() -> str | None:
    """The present trace, as log lines name it; none if off."""
    traceparent = current()
    return None if traceparent is None else traceparent[3:35]


class Span:
    """What `span` gives, to be entered once. This one is of no trace: tracing is off."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def rename(self, name: str) -> None:
        """For a name that is known only later."""

    def note(self, attributes: Attributes) -> None:
        """Adds attributes."""

    def fail(self, reason: str) -> None:
        """Marks it as failed. `reason` is the name of an error, not its text."""


UNTRACED = Span()


def span(
    name: str,
    parent: str | None = None,
    attributes: Attributes | None = None,
    kind: Kind = "internal",
) -> Span:
    """A span for as long as it is entered, in this thread or task.

    `parent` is a traceparent; one that is malformed begins a new trace. Without it the span belongs
    to the present one, if there is any. An error that leaves the span marks it as failed by the
    name of its class only: the texts of errors may hold what is personal.
    """
    return UNTRACED if _spans is None else _spans.span(name, parent, attributes, kind)


def finished(
    name: str,
    parents: Iterable[str | None],
    began: float,
    attributes: Attributes | None = None,
    kind: Kind = "consumer",
) -> None:
    """Tells each of the traces in a batch that its part was done, from `began` until now.

    `began` is in seconds of Unix time. A parent that occurs more than once gets one span, one whose
    trace is not kept gets none.
    """
    if _spans is not None:
        _spans.finished(name, parents, began, attributes, kind)


atexit.register(close)
