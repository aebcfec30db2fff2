"""Which campaign earned what."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.reading import Reader, Shared, json_response
from api.schemas import reads
from api.schemas.parameters import Day, ReadParameters, money, number
from projections import attribution
from projections.attribution import Attribution, CampaignCredit, Model
from projections.reading import Connection, Moment

MODEL = "attribution"

router = APIRouter(prefix="/v1/attribution", tags=["attribution"])


class AttributionParameters(ReadParameters):
    model: Annotated[Model, Field(description="How won amounts go to touches.")] = Model.LAST
    from_: Annotated[
        Day | None, Field(alias="from", description="First day of signature that counts.")
    ] = None
    to: Annotated[Day | None, Field(description="First day that counts no more.")] = None


@router.get(
    "",
    summary="Won revenue by campaign",
    response_model=reads.AttributionAnswer,
    responses=read_responses(),
)
async def read_attribution(
    services: Shared, reader: Reader, parameters: Annotated[AttributionParameters, Query()]
) -> Response:
    """`revenue` is `unattributed` and all credits together, to the minor unit."""
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Attribution:
        return attribution.attribution(
            connection,
            moment,
            model=parameters.model,
            currency=currency,
            start=parameters.from_,
            end=parameters.to,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen = answered.value
    content = {
        "model": seen.model.value,
        "currency": seen.currency,
        "from": parameters.from_,
        "to": parameters.to,
        "revenue": money(seen.revenue, currency),
        "unattributed": money(seen.unattributed, currency),
        "campaigns": [_credit(row, currency) for row in seen.campaigns],
        "other_currencies": [
            {"deals": other.count, "amount": money(other.amount, other.currency)}
            for other in seen.other_currencies
        ],
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def _credit(row: CampaignCredit, currency: str) -> dict[str, object]:
    return {
        "campaign_id": row.campaign_id,
        "credit": money(row.credit, currency),
        "cost": None if row.cost is None else money(row.cost, currency),
        "return": number(row.return_),
    }
