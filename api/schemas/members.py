"""Bodies and shapes of what is told of persons of our own house."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.fields import CommandBody, Label
from api.schemas.opportunities import Owner
from domain.member import member_name
from domain.values import ExternalId


class AssignTeam(CommandBody):
    """Which team an owner of deals is in, from `occurred_at` on until the next move."""

    owner: Owner
    team: Annotated[Label | None, Field(description="In none, where it is missing.")] = None

    @property
    def external_id(self) -> ExternalId:
        """Of the person's stream."""
        return member_name(self.owner)


class Member(BaseModel):
    """In `team` since `since`; null: in none."""

    owner: str
    team: str | None
    since: datetime
