"""Checkpoints and proofs: for auditors, who verify them by themselves."""

import base64
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from api.errors import RangeReversed
from api.openapi import read_responses
from api.routes.reading import Auditor, Shared, json_response
from api.schemas.proof import CheckpointAnswer, ConsistencyAnswer, InclusionAnswer
from infra.proof.proofs import Proofs

router = APIRouter(prefix="/v1/audit", tags=["audit"])

MOST = 2**63 - 1

Size = Annotated[
    int | None,
    Query(ge=1, le=MOST, description="Of the tree; that of the newest checkpoint by default."),
]


async def _proofs(services: Shared) -> Proofs:
    return services.proofs


Sealed = Annotated[Proofs, Depends(_proofs)]


@router.get(
    "/checkpoint",
    summary="The newest checkpoint, or the one of a size",
    response_model=CheckpointAnswer,
    responses={
        **read_responses(404),
        200: {
            "content": {
                "text/plain": {
                    "schema": {"type": "string", "description": "The signed note, as published."}
                }
            }
        },
    },
)
async def checkpoint(
    request: Request, services: Shared, proofs: Sealed, auditor: Auditor, size: Size = None
) -> Response:
    """A signed note (C2SP tlog-checkpoint), or with `Accept: application/json` the same in JSON,
    with the keys that sign for the log."""
    signed = await services.reads.in_thread(proofs.checkpoint, size)
    if not _wants_json(request.headers.get("accept", "")):
        return Response(signed.note, media_type="text/plain; charset=utf-8")
    return json_response(
        {
            "origin": signed.checkpoint.origin,
            "size": signed.checkpoint.size,
            "root": _text(signed.checkpoint.root),
            "note": signed.note,
            "keys": signed.keys,
        }
    )


@router.get(
    "/proof/inclusion/{position}",
    summary="That an event is in the log as it was signed",
    response_model=InclusionAnswer,
    responses=read_responses(404),
)
async def inclusion(
    services: Shared,
    proofs: Sealed,
    auditor: Auditor,
    position: Annotated[int, Path(ge=1, le=MOST, description="Of the event.")],
    size: Size = None,
) -> Response:
    """The path from the event's leaf to the root. Any size up to the newest checkpoint's will do,
    not only those that were signed."""
    proof = await services.reads.in_thread(proofs.inclusion, position, size)
    return json_response(
        {
            "position": proof.position,
            "index": proof.position - 1,
            "size": proof.size,
            "leaf_hash": _text(proof.leaf_hash),
            "path": [_text(node) for node in proof.path],
            "root": _text(proof.root),
            "checkpoint": proof.note,
        }
    )


@router.get(
    "/proof/consistency",
    summary="That the log of a later checkpoint extends that of an earlier one",
    response_model=ConsistencyAnswer,
    responses=read_responses(404),
)
async def consistency(
    services: Shared,
    proofs: Sealed,
    auditor: Auditor,
    first: Annotated[
        int, Query(alias="from", ge=1, le=MOST, description="Size of the smaller tree.")
    ],
    second: Annotated[
        int | None,
        Query(
            alias="to",
            ge=1,
            le=MOST,
            description="Size of the larger tree; that of the newest checkpoint by default.",
        ),
    ] = None,
) -> Response:
    """Nothing that was signed at the smaller size is changed or gone at the larger one."""
    if second is not None and first > second:
        raise RangeReversed(first, second)
    proof = await services.reads.in_thread(proofs.consistency, first, second)
    return json_response(
        {
            "from": proof.first,
            "to": proof.second,
            "from_root": _text(proof.first_root),
            "to_root": _text(proof.second_root),
            "path": [_text(node) for node in proof.path],
        }
    )


def _wants_json(accept: str) -> bool:
    """Whether JSON is asked for and plain text is not preferred to it."""
    weights = {}
    for part in accept.lower().split(","):
        kind, _, parameters = part.strip().partition(";")
        quality = 1.0
        for parameter in parameters.split(";"):
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        weights[kind.strip()] = quality
    plain = max(weights.get("text/plain", 0.0), weights.get("text/*", 0.0))
    return weights.get("application/json", 0.0) > plain


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
