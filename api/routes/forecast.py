"""What the open deals will bring, and when."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, model_validator
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.funnel import Convert, other, rates, revision
from api.routes.reading import Reader, Shared, found, json_response
from api.schemas import forecast as shapes
from api.schemas.parameters import Day, Instant, ReadParameters, money, number
from domain.pipeline import DEFAULT_PIPELINE_ID
from projections import funnel
from projections.funnel import (
    Backtest,
    Change,
    Forecast,
    Grouping,
    MethodScore,
    MonthsBy,
    Outlook,
    PastForecast,
    Score,
    Sums,
    Timing,
    Waterfall,
)
from projections.reading import Connection, Moment

MODEL = "funnel"

FITS = funnel.Fits()

router = APIRouter(prefix="/v1/forecast", tags=["forecast"])


class ForecastParameters(ReadParameters):
    pipeline_id: Annotated[
        UUID | None,
        Field(description="The default pipeline if missing; with `group=pipeline`, all."),
    ] = None
    timing: Annotated[
        Timing,
        Field(
            description="How long deals still take: half of their stage's time; all of it; all of"
            " it less the time spent there; or as deals took before."
        ),
    ] = Timing.HALF_ELAPSED
    months: Annotated[int, Field(ge=1, le=120)] = 6
    by: Annotated[
        MonthsBy, Field(description="Months from the date of the forecast, or of the calendar.")
    ] = MonthsBy.RELATIVE
    group: Annotated[
        Grouping | None,
        Field(
            description="Region and source are the customer's; the team is the owner's, null where"
            " none is known."
        ),
    ] = None
    convert: Convert = False

    def pipeline(self) -> UUID | None:
        if self.pipeline_id is None and self.group is not Grouping.PIPELINE:
            return DEFAULT_PIPELINE_ID
        return self.pipeline_id


@router.get(
    "",
    summary="Expected income by month",
    response_model=shapes.ForecastAnswer,
    responses=read_responses(404),
)
async def read_forecast(
    services: Shared, reader: Reader, parameters: Annotated[ForecastParameters, Query()]
) -> Response:
    """Amount × chance to win, in the month in which the deal should close; with the standard
    deviation of independent deals (exact), median and intervals (of the distribution; drawn with
    a fixed seed where there are more than a few deals). `total` and what stands beside it are over
    the months shown. `learned` rests on what was true before the day of `as_of` (in the configured
    time zone)."""
    currency = parameters.currency or services.settings.currency
    definition = services.definitions.forecast
    pipeline_id = parameters.pipeline()

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.forecast(
            connection,
            moment,
            pipeline_id=pipeline_id,
            currency=currency,
            timezone=services.settings.zone,
            definition=definition,
            timing=parameters.timing,
            months=parameters.months,
            by=parameters.by,
            grouping=parameters.group,
            convert=parameters.convert,
            fits=FITS,
        )

    models = [MODEL, "customers"] if parameters.group in funnel.OF_CUSTOMERS else [MODEL]
    answered = await services.reads.ask(models, parameters.question(), query)
    seen: Forecast = found(answered.value, "pipeline", pipeline_id or DEFAULT_PIPELINE_ID)
    content = {
        "pipeline_id": seen.pipeline_id,
        "currency": currency,
        "timing": seen.timing.value,
        "by": seen.by.value,
        "group": parameters.group and parameters.group.value,
        **_outlook(seen.outlook, currency),
        "groups": [{"group": name, **_outlook(outlook, currency)} for name, outlook in seen.groups],
        "other_currencies": [other(row) for row in seen.other_currencies],
        "rates": rates(seen.rates),
        "samples": [
            {
                "pipeline_id": sample.pipeline_id,
                "learned_until": sample.until,
                "one_in": sample.one_in,
                "used": sample.used,
                "ended": sample.ended,
                "stages": [
                    {
                        "stage": stage.stage,
                        "ended": stage.ended,
                        "moved": stage.moved,
                        "won": stage.won,
                        "lost": stage.lost,
                        "suspended": stage.suspended,
                    }
                    for stage in sample.stages
                ],
            }
            for sample in seen.samples
        ],
        "definition": {"forecast": definition.id, **revision(seen.revision)},
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


class Basis(StrEnum):
    """Whether a past forecast rests on what was known then, or on what was true then."""

    KNOWN = "known"
    EFFECTIVE = "effective"


class BacktestParameters(ReadParameters):
    pipeline_id: Annotated[UUID, Field(description="The default pipeline if missing.")] = (
        DEFAULT_PIPELINE_ID
    )
    basis: Annotated[
        Basis,
        Field(
            description="What was known at the time; or, for imported history, whose recording"
            " tells nothing, what was true at the time."
        ),
    ] = Basis.KNOWN
    months: Annotated[int, Field(ge=1, le=60, description="How many ends of months.")] = 12
    horizon: Annotated[int, Field(ge=1, le=24, description="Months forecast at each.")] = 3


@router.get(
    "/backtest",
    summary="Past forecasts against what came",
    response_model=shapes.BacktestAnswer,
    responses=read_responses(404),
)
async def read_backtest(
    services: Shared, reader: Reader, parameters: Annotated[BacktestParameters, Query()]
) -> Response:
    """For each past end of a month whose horizon is over: the forecast of the deals then open, by
    each timing and by the mean of the last months' wins (`naive`), against what came. `learned`
    learns from nothing later than the month's end."""
    currency = parameters.currency or services.settings.currency
    definition, zone = services.definitions.forecast, services.settings.zone

    def query(connection: Connection, moment: Moment) -> Any:
        ends = funnel.month_ends(moment.as_of, zone, parameters.months, parameters.horizon)
        if parameters.basis is Basis.KNOWN:
            before = timedelta(microseconds=1)
            ends = [
                replace(end, known_at=services.reads.position_at(end.at - before)) for end in ends
            ]
        return funnel.backtest(
            connection,
            moment,
            pipeline_id=parameters.pipeline_id,
            currency=currency,
            timezone=zone,
            definition=definition,
            ends=ends,
            horizon=parameters.horizon,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen: Backtest = found(answered.value, "pipeline", parameters.pipeline_id)
    content = {
        "pipeline_id": seen.pipeline_id,
        "currency": currency,
        "basis": parameters.basis.value,
        "horizon": seen.horizon,
        "scores": [_method_score(score) for score in seen.scores],
        "month_ends": [_tested(one, currency) for one in seen.month_ends],
        "definition": {"forecast": definition.id},
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def _method_score(score: MethodScore) -> dict[str, Any]:
    levels = funnel.LEVELS
    return {
        "method": score.method,
        "open": _score(score.open),
        "all": _score(score.all),
        "coverage": None
        if score.coverage is None
        else [
            {"level": f"{level:g}", "within": _ratio(within)}
            for level, within in zip(levels, score.coverage, strict=True)
        ],
        "brier": _ratio(score.brier),
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "wape": _ratio(score.wape),
        "bias": _ratio(score.bias),
        "accuracy": _ratio(score.accuracy),
    }


def _ratio(value: float | None) -> str | None:
    return None if value is None else number(Decimal(f"{value:.6f}"))


def _tested(tested: PastForecast, currency: str) -> dict[str, Any]:
    return {
        "at": tested.month_end.at,
        "known_at": tested.month_end.known_at,
        "to": tested.month_end.end,
        "deals": tested.deals,
        "open": money(Decimal(tested.open), currency),
        "all": money(Decimal(tested.all), currency),
        "forecasts": [
            {
                "method": one.method,
                "expected": money(Decimal(one.expected), currency),
                "intervals": None
                if one.spread is None
                else [
                    {
                        "level": f"{level:g}",
                        "low": money(Decimal(low), currency),
                        "high": money(Decimal(high), currency),
                    }
                    for level, (low, high) in zip(funnel.LEVELS, one.spread.intervals, strict=True)
                ],
                "brier": _ratio(one.brier),
                "ended": one.ended,
            }
            for one in tested.forecasts
        ],
    }


class WaterfallParameters(ReadParameters):
    pipeline_id: Annotated[UUID | None, Field(description="All pipelines if missing.")] = None
    from_: Annotated[
        Instant, Field(alias="from", description="What changed after this time counts,")
    ]
    to: Annotated[Instant | None, Field(description="up to this one; `as_of` if missing.")] = None
    close_from: Annotated[
        Day | None, Field(description="Only deals expected to close from this day on.")
    ] = None
    close_to: Annotated[
        Day | None, Field(description="Only deals expected to close before this day.")
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        end = self.to or self.as_of
        if end is not None and end < self.from_:
            raise ValueError("from lies after to")
        if self.close_from and self.close_to and self.close_to < self.close_from:
            raise ValueError("close_from lies after close_to")
        return self


@router.get(
    "/waterfall",
    summary="What happened to the open amount",
    response_model=shapes.WaterfallAnswer,
    responses=read_responses(404),
)
async def read_waterfall(
    services: Shared, reader: Reader, parameters: Annotated[WaterfallParameters, Query()]
) -> Response:
    """Opening + new + reopened + raised + moved in − lowered − moved out − suspended − won − lost
    − terminated = closing, exactly. Deals move in and out of the window of expected closes, where
    one is asked for; `reopened` ones were resumed."""
    currency = parameters.currency or services.settings.currency
    until = []

    def query(connection: Connection, moment: Moment) -> Any:
        end = min(parameters.to or moment.as_of, moment.as_of)
        until.append(end)
        return funnel.waterfall(
            connection,
            moment,
            start=min(parameters.from_, end),
            end=end,
            pipeline_id=parameters.pipeline_id,
            currency=currency,
            close_from=parameters.close_from,
            close_to=parameters.close_to,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen: Waterfall = found(
        answered.value, "pipeline", parameters.pipeline_id or DEFAULT_PIPELINE_ID
    )
    content = {
        "pipeline_id": parameters.pipeline_id,
        "currency": currency,
        "from": parameters.from_,
        "to": until[-1],
        "close_from": parameters.close_from,
        "close_to": parameters.close_to,
        "opening": _change(seen.opening, currency),
        "changes": [_change(change, currency) for change in seen.changes],
        "closing": _change(seen.closing, currency),
        "other_currencies": seen.other_currencies,
        "definition": revision(seen.revision),
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def _change(change: Change, currency: str) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "times": change.times,
        "deals": change.deals,
        "amount": money(change.amount, currency),
    }


def _outlook(outlook: Outlook, currency: str) -> dict[str, Any]:
    total = _sums(outlook.total, currency)
    return {
        "deals": outlook.deals,
        "months": [
            {
                "month": month.month,
                "from": month.start,
                "to": month.end,
                **_sums(month.sums, currency),
            }
            for month in outlook.months
        ],
        "total": total.pop("expected"),
        **total,
        "beyond": money(outlook.beyond, currency),
        "categories": [
            {
                "category": one.category,
                "deals": one.deals,
                "amount": money(one.amount, currency),
                "expected": money(one.expected, currency),
            }
            for one in outlook.categories
        ],
    }


def _sums(sums: Sums, currency: str) -> dict[str, Any]:
    return {
        "expected": money(sums.expected, currency),
        "sd": money(sums.sd, currency),
        "median": money(sums.median, currency),
        "intervals": intervals(sums.intervals, currency),
        "closed": money(sums.closed, currency),
        "commit": money(sums.commit, currency),
        "best_case": money(sums.best_case, currency),
        "pipeline": money(sums.pipeline, currency),
    }


def intervals(found: list[funnel.Interval], currency: str) -> list[dict[str, Any]]:
    return [
        {
            "level": f"{one.level:g}",
            "low": money(one.low, currency),
            "high": money(one.high, currency),
        }
        for one in found
    ]
