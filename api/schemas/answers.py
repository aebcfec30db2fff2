"""Shapes of answers. They describe; handlers build the same shapes directly."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field


class CommandAnswer(BaseModel):
    """What every command answers, now and whenever it is repeated."""

    id: Annotated[UUID, Field(description="The thing that the command was about.")]
    version: Annotated[int, Field(ge=1, description="Its version after the command.")]
    position: Annotated[
        int, Field(ge=0, description="Place in the log; reads take it as `min_position`.")
    ]
    contact_id: Annotated[UUID | None, Field(description="Where a contact was added.")] = None


class ProblemEntry(BaseModel):
    """One value that is wrong."""

    in_: Annotated[str, Field(alias="in", description="A JSON pointer, or a parameter's name.")]
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457."""

    type: Annotated[str, Field(description="Stable: one for each rule.")]
    title: str
    status: int
    detail: str
    errors: list[ProblemEntry] | None = None
    existing_id: UUID | None = None
    position: int | None = None


class BulkLine(BaseModel):
    """A command of a bulk: its path, its idempotency key, its body."""

    path: Annotated[str, Field(max_length=200, examples=["/v1/customers"])]
    key: Annotated[str, Field(min_length=1, max_length=255)]
    body: dict[str, Any] | None = None


class BulkAnswer(BaseModel):
    """What came of line `line` (from 1): an answer or a problem."""

    line: int
    status: int
    id: UUID | None = None
    version: int | None = None
    position: int | None = None
    contact_id: UUID | None = None
    problem: Problem | None = None


class Live(BaseModel):
    status: str


class Ready(BaseModel):
    """`reflected`: position of each read model."""

    status: str
    position: int
    reflected: dict[str, int]
