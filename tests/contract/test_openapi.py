"""The API does what its OpenAPI description says, for whatever is sent to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from api.tokens import Scope
from tests.contract.description import description
from tests.e2e.api.running import WAIT, Product

CONFIG = {
    "checks": {
        # A position that is not reached, as any that was made up, is a 503 by intention.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
        # A schema cannot say what a currency, a stage or a period allows, nor which cursor is
        # real: values of the right shape may be refused, but as nothing else than that.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "400", "401", "403", "404", "409", "412", "422", "503"]
        },
    },
}
schema = schemathesis.openapi.from_dict(description(), config=schemathesis.Config.from_dict(CONFIG))


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    """Lines as they are."""
    return str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def token(product: Product) -> str:
    return product.tokens.issue("contract", frozenset({Scope.ADMIN}))


@schema.parametrize()
@settings(
    max_examples=12,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_keeps_its_description(case: Any, product: Product, token: str) -> None:
    # On the case, not beside it: what is judged must be what is sent. A made-up token that was
    # replaced would count as a wrong request that was accepted.
    case.headers["Authorization"] = f"Bearer {token}"
    case.call_and_validate(base_url=product.url, timeout=60)


def test_the_running_product_describes_itself_so(product: Product) -> None:
    assert httpx.get(f"{product.url}/openapi.json", timeout=WAIT).json() == description()
