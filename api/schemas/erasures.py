"""Shapes of erasures: what asks for one, and its certificate."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.fields import Model, Prose


class Erase(Model):
    """Nothing has to be said; the body may be left out."""

    reason: Annotated[
        Prose | None,
        Field(description="Why; kept in the clear, with the event: name nobody in it."),
    ] = None


class Destroyed(BaseModel):
    """What cannot be opened any more: the person's key, and with it every text under it."""

    sealed_fields: Annotated[int, Field(description="Texts in the log that the key had opened.")]
    positions: Annotated[
        list[int], Field(description="Of the events that hold them, the first thousand.")
    ]


class Handout(BaseModel):
    """What left the product before, and cannot be called back. `personal`: whether personal text
    was in it in the clear; else the person is in it under the id alone."""

    at: datetime
    actor: str
    kind: str
    position: int
    what: str
    personal: bool


class Certificate(BaseModel):
    """That a person was erased: what was destroyed, when, by whom and why."""

    subject: Annotated[UUID, Field(description="Whose key was destroyed.")]
    kind: Annotated[str, Field(description="contact or customer.")]
    customer_id: UUID
    erased_at: datetime
    actor: str
    reason: str | None
    position: Annotated[
        int | None,
        Field(description="Of the event that records it; null while that is still to be recorded."),
    ]
    destroyed: Annotated[
        Destroyed | None, Field(description="Null while the event is still to be recorded.")
    ]
    left_in_clear: Annotated[
        list[int],
        Field(
            description="Positions of events of earlier versions of the program that hold"
            " attributes of the person in the clear, the first thousand; reads do not show them."
        ),
    ]
    elsewhere_within_seconds: Annotated[
        float,
        Field(
            description="Other processes are told at once; one that cannot be reached opens nothing"
            " with the key after this time."
        ),
    ]
    handouts: Annotated[list[Handout], Field(description="The first thousand, earliest first.")]
    remarks: Annotated[list[str], Field(description="What an erasure cannot reach.")]


class CertificateLine(BaseModel):
    """An erasure in the list; its certificate says more."""

    subject: UUID
    kind: str
    customer_id: UUID
    erased_at: datetime
    actor: str
    reason: str | None
    position: int | None


class Erasures(BaseModel):
    """A page of those who were erased, by the ids of the subjects."""

    items: list[CertificateLine]
    next: Annotated[
        UUID | None, Field(description="To be given as `after` for the next page; null at the end.")
    ]
