"""Segments of customers by a decision tree, and their export as target lists."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field
from starlette.responses import Response, StreamingResponse

from api.errors import InvalidRequest, ResourceNotFound
from api.openapi import read_responses
from api.reads import Answered
from api.routes.lifecycle import MODEL, analysis, definition
from api.routes.reading import Reader, Shared
from api.schemas.fields import EARLIEST
from api.schemas.parameters import Instant, ReadParameters, number
from api.schemas.segments import Member, TreeAnswer
from api.services import Services
from projections.lifecycle import VALUES, Classification
from projections.lifecycle.segments import Leaf, Target, Tree, tree
from projections.reading import Connection, Moment

router = APIRouter(prefix="/v1/segments", tags=["segments"])

_NDJSON = "application/x-ndjson"
TARGETS = tuple(
    f"{classification.value}:{value}"
    for classification in Classification
    for value in VALUES[classification]
)


def _known_target(value: str) -> str:
    if value not in TARGETS:
        raise ValueError("is not a classification and one of its values, as path:order")
    return value


class TreeParameters(ReadParameters):
    target: Annotated[
        str,
        Field(
            description="Classification and value that customers come to, or do not.",
            examples=["path:order"],
            json_schema_extra={"enum": list(TARGETS)},
        ),
        AfterValidator(_known_target),
    ]
    since: Annotated[
        Instant | None,
        Field(
            description="What customers were like then is learned from, with what came of them by"
            " `as_of`; 180 days before that if missing."
        ),
    ] = None
    depth: Annotated[int, Field(ge=1, le=10, description="Questions to a leaf, at most.")] = 4
    least: Annotated[
        int, Field(ge=2, le=100_000, description="Customers to learn from in a leaf, at least.")
    ] = 20


class MemberParameters(TreeParameters):
    leaf: Annotated[int | None, Field(ge=0, le=2**31 - 1, description="All leaves if missing.")] = (
        None
    )


@router.get(
    "/tree",
    summary="Which customers come to a target",
    response_model=TreeAnswer,
    responses=read_responses(),
)
async def read_tree(
    services: Shared, reader: Reader, parameters: Annotated[TreeParameters, Query()]
) -> Response:
    """A decision tree over region, industry, source, attributes and behaviour: learned from what
    customers were like at `since` and whether they have come to the target, it scores the others.
    Of very many customers it takes a sample. Attributes of persons are left out."""
    since, answered = await _tree(services, parameters)
    seen = answered.value
    content = {
        "target": parameters.target,
        "since": since,
        "customers": seen.customers,
        "reached": seen.reached,
        "others": seen.others,
        "reason": seen.reason,
        "leaves": [
            {
                "leaf": leaf.leaf,
                "rule": leaf.rule,
                "customers": leaf.customers,
                "reached": leaf.reached,
                "probability": _probability(leaf),
                "others": leaf.others,
            }
            for leaf in seen.leaves
        ],
    }
    return analysis(services, answered, content, "path")


@router.get(
    "/members",
    summary="A segment as a target list",
    response_class=Response,
    responses={
        200: {
            "description": "A customer per line, those of the most probable leaf first.",
            "headers": {
                "X-Position": {
                    "description": "Everything up to there is in the list.",
                    "schema": {"type": "string"},
                },
                "X-Definition": {
                    "description": "Parts of the definitions and their ids: path=1.",
                    "schema": {"type": "string"},
                },
            },
            "content": {_NDJSON: {"schema": Member.model_json_schema()}},
        },
        **read_responses(404),
    },
)
async def read_members(
    services: Shared, reader: Reader, parameters: Annotated[MemberParameters, Query()]
) -> Response:
    """The customers whom the tree scores, of one leaf or of all: those who have not come to the
    target yet."""
    _, answered = await _tree(services, parameters)
    wanted = [
        leaf
        for leaf in answered.value.leaves
        if parameters.leaf is None or leaf.leaf == parameters.leaf
    ]
    if parameters.leaf is not None and not wanted:
        raise ResourceNotFound(f"The tree has no leaf {parameters.leaf}.")
    named = definition(services, "path")
    headers = {
        "X-Position": str(answered.position),
        "X-Definition": ",".join(f"{part}={id_}" for part, id_ in named.items()),
    }
    return StreamingResponse(_lines(wanted), media_type=_NDJSON, headers=headers)


async def _tree(services: Services, parameters: TreeParameters) -> tuple[datetime, Answered[Tree]]:
    classification, _, value = parameters.target.partition(":")
    target = Target(Classification(classification), value)
    when: list[datetime] = []

    def query(connection: Connection, moment: Moment) -> Tree:
        since = parameters.since or max(EARLIEST, moment.as_of - timedelta(days=180))
        if since >= moment.as_of:
            raise InvalidRequest.of_parameter("since", "is not before `as_of`")
        when.append(since)
        return tree(
            connection,
            moment,
            target=target,
            since=since,
            currency=parameters.currency or services.settings.currency,
            depth=parameters.depth,
            least=parameters.least,
        )

    answered = await services.reads.ask([MODEL, "customers"], parameters.question(), query)
    return when[-1], answered


def _lines(leaves: list[Leaf]) -> Iterator[bytes]:
    for leaf in leaves:
        probability = _probability(leaf)
        for customer_id in leaf.members:
            line: dict[str, Any] = {
                "customer_id": customer_id,
                "leaf": leaf.leaf,
                "probability": probability,
            }
            yield orjson.dumps(line) + b"\n"


def _probability(leaf: Leaf) -> str | None:
    return number(round(Decimal(leaf.reached) / leaf.customers, 6))
