"""Whether the process lives, whether it can do its work, and what it counts."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.errors import Problem, Unavailable
from api.openapi import problems
from api.routes.reading import Shared, json_response
from api.schemas.answers import Live, Ready

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="The process answers", response_model=Live)
async def live() -> Response:
    return json_response({"status": "live"})


@router.get(
    "/health/ready",
    summary="Commands and reads can be answered",
    response_model=Ready,
    responses=problems(503),
)
async def ready(services: Shared) -> Response:
    """Whether the log takes commands, the databases answer, the projections run, and the read
    models are of this log."""
    checks = {"log": services.commands.ready, "database": True, "projections": services.running()}
    strangers: Mapping[str, str] = {}
    try:
        state = await services.reads.state()
    except Unavailable:
        checks["database"] = False
    else:
        strangers = state.strangers
        checks["projections"] = checks["projections"] and not strangers
        if all(checks.values()):
            return json_response(
                {"status": "ready", "position": state.head, "reflected": state.reflected}
            )
    failed = ", ".join(name for name, works in checks.items() if not works)
    return Problem(
        503,
        "not-ready",
        "The service is not ready",
        " ".join([f"Not working: {failed}.", *strangers.values()]),
        {"Retry-After": "1"},
        {"checks": checks},
    ).response()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, services: Shared) -> Response:
    """Counts that need a database are those of the last time it answered."""
    try:
        state = await services.reads.state()
    except Unavailable:
        pass
    else:
        services.metrics.observe_log(state.head, state.sealed, state.partitions, state.parked)
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
