"""What Prometheus scrapes, and the outermost layer of the application that counts it.

The same layer gives each request its span, and turns whatever nobody expected into a problem, so
that no stack trace leaves the process.
"""

from collections.abc import Mapping
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ClientGone, problem_of
from api.headers import ANSWERED, traceparent
from infra import tracing

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_UNTRACED = frozenset({"/metrics", "/health/live", "/health/ready"})
"""Asked every few seconds, by machines that never look at a trace."""

# a series more for each, of no use to alerts and dashboards
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "crm_http_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self._head = Gauge("log_position", "Position of the last event.", registry=None)
        self._sealed = Gauge(
            "seal_position", "Position of the log up to which events are sealed.", registry=None
        )
        self._seal_lag = Gauge(
            "seal_lag_events", "Events after the newest checkpoint.", registry=None
        )
        self._log_known = False
        self._position = Gauge(
            "projection_position",
            "Position of the log up to which a partition's events are applied.",
            ("projection", "partition"),
            registry=self._registry,
        )
        self._parked = Gauge(
            "parked_total",
            "Keys whose events wait because one of them could not be applied.",
            ("projection",),
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        labels = (method, route, status)
        child = self._children.get(labels)
        if child is None:
            child = self._requests.labels(method, route, str(status))
            self._children[labels] = child
        child.observe(seconds)

    def observe_log(
        self,
        head: int,
        sealed: int,
        partitions: Mapping[str, Mapping[int, int]],
        parked: Mapping[str, int],
    ) -> None:
        """The end of the log, up to where it is sealed and, by projection, its partitions'
        positions and parked keys.

        None of them is exported before the first call.
        """
        told = {self._head: head, self._sealed: sealed, self._seal_lag: max(0, head - sealed)}
        for gauge, value in told.items():
            gauge.set(value)
            if not self._log_known:
                self._registry.register(gauge)
        self._log_known = True
        for name, positions in partitions.items():
            for partition, position in positions.items():
                self._position.labels(name, partition).set(position)
        for name, keys in parked.items():
            self._parked.labels(name).set(keys)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Observed:
    """Pure ASGI: counts and traces requests, and answers for handlers that failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        if not tracing.enabled() or scope["path"] in _UNTRACED:
            await self._answer(method, scope, receive, send)
            return
        with tracing.span(method, traceparent(scope["headers"]), kind="server") as span:
            route, status = await self._answer(method, scope, receive, send)
            span.rename(f"{method} {route}" if route else method)
            span.note(
                {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                }
            )
            if status >= 500:
                span.fail(str(status))

    async def _answer(
        self, method: str, scope: Scope, receive: Receive, send: Send
    ) -> tuple[str, int]:
        """Gives the route's template and the status that was sent."""
        began = perf_counter()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if ANSWERED in scope:
                    message["headers"] = [*message["headers"], scope[ANSWERED]]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientGone:
            status = status or 499
        except Exception as error:
            if status:
                raise
            await problem_of(error).response()(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "")
            self._metrics.answered(method, route, status, perf_counter() - began)
        return route, status
