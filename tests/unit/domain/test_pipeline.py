from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from domain.errors import InvalidProbability, InvalidStages, InvalidText
from domain.pipeline import (
    DEFAULT_PIPELINE_ID,
    DEFAULT_STAGES,
    Pipeline,
    chances_to_win,
)
from domain.values import Stage
from tests.given_when_then import ID, NOW, fact, given

DEFINED = fact(Pipeline.Created, name="project sale", stages=DEFAULT_STAGES, approvals=())
FIRST = DEFAULT_STAGES[0]


def defining(
    stages: Sequence[Stage] = DEFAULT_STAGES, approvals: Sequence[str] = (), name: str = "x"
) -> Callable[[None], Pipeline]:
    return lambda _: Pipeline.define(ID, name=name, stages=stages, approvals=approvals, at=NOW)


def revising(
    stages: Sequence[Stage] = DEFAULT_STAGES, approvals: Sequence[str] = ()
) -> Callable[[Pipeline], None]:
    return lambda pipeline: pipeline.revise(stages=stages, approvals=approvals, at=NOW)


def test_the_chance_to_win_is_the_product_of_the_chances_from_there_on() -> None:
    assert chances_to_win(DEFAULT_STAGES) == {
        "prospect": Decimal("0.36"),
        "bid": Decimal("0.72"),
        "negotiation": Decimal("0.9"),
        "contract": Decimal(1),
    }
    assert list(chances_to_win(DEFAULT_STAGES)) == [stage.name for stage in DEFAULT_STAGES]


def test_the_default_pipelines_id_never_changes() -> None:
    assert str(DEFAULT_PIPELINE_ID) == "7881094b-197f-5e2d-800d-7246c70bf823"


def test_is_defined_as_revision_1() -> None:
    pipeline = (
        given()
        .when(defining(approvals=("terminate", "suspend")))
        .then(fact(Pipeline.Created, stages=DEFAULT_STAGES, approvals=("suspend", "terminate")))
    )
    assert pipeline.current.number == 1
    assert pipeline.partition_key == ID


def test_revisions_are_kept_side_by_side() -> None:
    shorter = fact(Pipeline.Revised, revision=2, stages=DEFAULT_STAGES[:2], approvals=())
    pipeline = (
        given(DEFINED, shorter)
        .when(revising(DEFAULT_STAGES[:1], ["suspend"]))
        .then(
            fact(
                Pipeline.Revised,
                revision=3,
                stages=DEFAULT_STAGES[:1],
                approvals=("suspend",),
                at=NOW,
            )
        )
    )
    assert [len(pipeline.revision(number).stages) for number in (1, 2, 3)] == [4, 2, 1]


def test_revising_to_the_same_adds_nothing() -> None:
    given(DEFINED).when(revising()).then()
    longer_written = replace(FIRST, chance_to_next=Decimal("0.50"))
    given(DEFINED).when(revising((longer_written, *DEFAULT_STAGES[1:]))).then()


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (FIRST, FIRST),
        tuple(replace(FIRST, name=str(i)) for i in range(51)),
        (replace(FIRST, duration_months=Decimal(-1)),),
        (replace(FIRST, duration_months=Decimal("Infinity")),),
        (replace(FIRST, duration_months=Decimal("NaN")),),
        (replace(FIRST, duration_months=Decimal(1201)),),
        (replace(FIRST, duration_months=Decimal("1E-99999")),),
        (replace(FIRST, visits_per_week=0),),
        (replace(FIRST, approval=True),),
    ],
)
def test_refuses_stages_that_can_not_be_walked(stages: tuple[Stage, ...]) -> None:
    given().when(defining(stages)).refused(InvalidStages)
    given(DEFINED).when(revising(stages)).refused(InvalidStages)


@pytest.mark.parametrize("chance", ["-0.1", "1.1", "NaN"])
def test_refuses_a_chance_that_is_none(chance: str) -> None:
    stage = replace(FIRST, chance_to_next=Decimal(chance))
    given().when(defining((stage,))).refused(InvalidProbability)


def test_refuses_unnamed_pipelines_and_stages() -> None:
    given().when(defining(name="")).refused(InvalidText)
    given().when(defining((replace(FIRST, name=" "),))).refused(InvalidText)


def test_refuses_unknown_approvals() -> None:
    given().when(defining(approvals=("open",))).refused(InvalidStages)


def test_fifty_stages_are_fine() -> None:
    stages = tuple(replace(FIRST, name=str(i), visits_per_week=3) for i in range(50))
    given().when(defining(stages)).then(fact(Pipeline.Created, stages=stages))
