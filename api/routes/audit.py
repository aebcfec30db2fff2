"""History for those who audit it: the log as it is, states at any event or date, and causes."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from api.audit import NDJSON_TYPE
from api.errors import ApiError, InvalidRequest, ResourceNotFound
from api.openapi import problems
from api.routes.reading import Auditor, Shared, json_response
from api.schemas import audit as shapes
from api.services import Services
from infra.history import answers, states, tracing
from infra.history.lines import Lines, kind_of
from infra.history.reading import Reading, Span, Wanted, span

T = TypeVar("T")

SCHEMAS = (shapes.AuditEvent, shapes.AuditEnd)
"""Named in the description of the stream alone."""

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An event per line, in order of position, and a last line.",
        "content": {
            NDJSON_TYPE: {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/AuditEvent"},
                        {"$ref": "#/components/schemas/AuditEnd"},
                    ]
                }
            }
        },
    }
}


class EventUnreadable(ApiError):
    status = 409
    type = "event-unreadable"
    title = "An event of the stream cannot be read"


@router.get(
    "/events",
    summary="Replay the log",
    response_class=Response,
    responses=_LINES | problems(400, 401, 403, 422, 503),
)
async def events(
    services: Shared,
    auditor: Auditor,
    parameters: Annotated[shapes.EventsParameters, Query()],
) -> Response:
    """From any position or time on, to the end that the log has now. The last line says where to
    go on: with its `next_after` as `after` the next answer begins where this one ended, and the
    lines are the same as those of one long answer. An answer without a last line broke off."""
    replays = services.replays
    where = await services.reads.in_thread(_span, services, parameters)
    reading = Reading(replays.pool, where, parameters.wanted(), parameters.limit)
    texts = replays.texts(auditor)
    handouts = replays.handouts(auditor, where.through)
    return await replays.begin(reading, texts, handouts, where.end)


def _span(services: Services, parameters: shapes.EventsParameters) -> Span:
    return span(
        services.replays.pool,
        after=parameters.after,
        to=parameters.to,
        since=parameters.since,
        until=parameters.until,
    )


@router.get(
    "/streams/{id}",
    summary="The events of one thing",
    response_model=shapes.StreamAnswer,
    responses=problems(400, 401, 403, 404, 422, 503),
)
async def stream(
    id: UUID,
    services: Shared,
    auditor: Auditor,
    parameters: Annotated[shapes.StreamParameters, Query()],
) -> Response:
    """In order of version, in pages. In one go: `/v1/audit/events?stream_id=`."""
    texts = services.replays.texts(auditor)

    def read() -> dict[str, Any]:
        pool = services.replays.pool
        where = states.versions(pool, id)
        lines: list[Any] = []
        if parameters.after < where.last:
            bounds = states.positions(pool, id, parameters.after, parameters.limit)
            reading = Reading(pool, Span(bounds[0] - 1, bounds[1], bounds[1]), Wanted(stream_id=id))
            while not reading.ended:
                rows = reading.next()
                found = Lines(texts).of(rows)
                if rows:
                    services.replays.handouts(auditor, bounds[1]).leaving(texts, rows[0].position)
                lines += [orjson.loads(line) for line in found.splitlines()]
        last = lines[-1]["version"] if lines else where.last
        return {
            "stream": {"kind": kind_of(where.topic), "id": str(id)},
            "items": lines,
            "next": last if last < where.last else None,
            "end": where.last,
        }

    return json_response(await _found(services, read))


@router.get(
    "/streams/{id}/state",
    summary="The state of one thing, after any event or at any date",
    response_model=shapes.StateAnswer,
    responses=problems(400, 401, 403, 404, 409, 422, 503),
)
async def state(
    id: UUID,
    services: Shared,
    auditor: Auditor,
    parameters: Annotated[shapes.StateParameters, Query()],
) -> Response:
    """After a version: the events in the order of their recording, as the write side held it. As
    of a date: what was true by then, in order of time, as the read models have it; facts told late
    take their place in time, unless `known_at` leaves them out."""
    texts = services.replays.texts(auditor)

    def read() -> dict[str, Any]:
        found = states.state(services.replays.pool, id, _when(services, parameters))
        answer = answers.told_state(found, texts)
        services.replays.handouts(auditor, found.through).leaving(texts, found.first)
        return answer

    return json_response(await _found(services, read))


@router.get(
    "/streams/{id}/difference",
    summary="What changed between two events or dates, and by what",
    response_model=shapes.DifferenceAnswer,
    responses=problems(400, 401, 403, 404, 409, 422, 503),
)
async def difference(
    id: UUID,
    services: Shared,
    auditor: Auditor,
    parameters: Annotated[shapes.DifferenceParameters, Query()],
) -> Response:
    """Each place in which the two states differ, in plain words, with the events that made it
    so."""
    texts = services.replays.texts(auditor)

    def read() -> dict[str, Any]:
        known = _position(services, parameters.known_at)
        earlier, later = (_moment(one, known) for one in (parameters.earlier, parameters.later))
        found = states.differences(services.replays.pool, id, earlier, later)
        told = answers.told_differences(found, texts)
        positions = [fact.position for one in found for fact in one.made_by]
        if positions:
            services.replays.handouts(auditor, max(positions)).leaving(texts, min(positions))
        return {"stream_id": str(id), "differences": told}

    return json_response(await _found(services, read))


@router.get(
    "/commands/{id}",
    summary="A command's trace",
    response_model=shapes.CommandAnswer,
    responses=problems(400, 401, 403, 404, 422, 503),
)
async def command(id: UUID, services: Shared, auditor: Auditor) -> Response:
    """What it recorded and answered, what gave rise to it, what it gave rise to, and which read
    models have it. Of a command that recorded nothing there is only its receipt, under its key."""
    texts = services.replays.texts(auditor)

    def read() -> dict[str, Any]:
        found = tracing.trace(services.replays.pool, id)
        if found is None:
            raise ResourceNotFound(f"No event of the log is of a command {id}.")
        answer = answers.told_trace(found, texts)
        shown = [*found.events, *([found.cause] if found.cause else [])]
        positions = [row.position for row in shown]
        services.replays.handouts(auditor, max(positions)).leaving(texts, min(positions))
        keys = [(UUID(row.partition_key), row.position) for row in found.events]
        models = services.reads.followed(keys)
        return {**answer, "read_models": {name: asdict(one) for name, one in models.items()}}

    return json_response(await _found(services, read))


async def _found(services: Services, read: Callable[[], T]) -> T:
    """Raises ResourceNotFound, EventUnreadable, InvalidRequest."""

    def told() -> T:
        try:
            return read()
        except states.NoSuchStream as missing:
            raise ResourceNotFound(
                f"There is no stream {missing}, or there was none then."
            ) from None
        except states.NotFoldable as error:
            raise EventUnreadable(
                f"No state from it on can be told: {error}",
                members={"position": error.position, "version": error.version},
            ) from None
        except states.TooManyDifferences:
            raise InvalidRequest.of_parameter("to", "lies too far from from") from None

    return await services.reads.in_thread(told)


def _when(services: Services, parameters: shapes.StateParameters) -> states.When:
    if parameters.as_of is None and parameters.known_at is None:
        return states.AfterVersion(parameters.version)
    return states.AsOf(parameters.as_of, _position(services, parameters.known_at))


def _position(services: Services, known_at: int | datetime | None) -> int | None:
    return None if known_at is None else services.reads.position_at(known_at)


def _moment(at: int | datetime, known_at: int | None) -> states.When:
    if isinstance(at, int):
        return states.AfterVersion(at)
    return states.AsOf(at, known_at)
