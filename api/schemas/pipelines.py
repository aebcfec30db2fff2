"""Bodies of the commands on pipelines."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.schemas.fields import Chance, CommandBody, Label, Model, Months, Name
from domain.values import Stage


class StageBody(Model):
    """A step of a pipeline."""

    name: Label
    chance_to_next: Annotated[
        Chance, Field(description="Chance to reach the next stage; of the last one: to win.")
    ]
    duration_months: Annotated[Months, Field(description="Usual time in the stage, in months.")]
    visits_per_week: Annotated[int, Field(ge=0, le=100)] | None = None
    approval: Annotated[bool, Field(description="Whether entering it needs an approver.")] = False


def _stage(body: StageBody) -> Stage:
    return Stage(
        body.name,
        body.chance_to_next,
        body.duration_months,
        body.visits_per_week,
        body.approval,
    )


Stages = Annotated[
    tuple[Annotated[StageBody, AfterValidator(_stage)], ...], Field(min_length=1, max_length=50)
]
Approvals = Annotated[
    tuple[Literal["suspend", "terminate"], ...],
    Field(max_length=2, description="Changes of status that need an approver."),
]


class RevisePipeline(CommandBody):
    """New stages. Running deals keep the revision they were opened with until they are moved."""

    stages: Stages
    approvals: Approvals = ()


class DefinePipeline(RevisePipeline):
    """A pipeline, from its first stage to its last."""

    name: Name
