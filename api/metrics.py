"""What Prometheus scrapes, and the outermost layer of the application that counts it.

The same layer turns whatever nobody expected into a problem, so that no trace leaves the process.
"""

from collections.abc import Iterable, Mapping
from time import perf_counter

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ClientGone, problem_of

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "crm_http_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self._head = Gauge(
            "crm_log_position", "Position of the last event.", registry=self._registry
        )
        self._reflected = Gauge(
            "crm_projection_position",
            "Position up to which a projection reflects the log.",
            ("projection",),
            registry=self._registry,
        )
        self._parked = Gauge(
            "crm_projection_parked_keys",
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
        self, head: int, reflected: Mapping[str, int], parked: Iterable[tuple[str, int]]
    ) -> None:
        self._head.set(head)
        for name, position in reflected.items():
            self._reflected.labels(name).set(position)
        for name, keys in parked:
            self._parked.labels(name).set(keys)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Observed:
    """Pure ASGI: counts requests, and answers for handlers that failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
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
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._metrics.answered(method, route, status, perf_counter() - began)
