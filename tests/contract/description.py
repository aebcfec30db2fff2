"""What the product says of itself, without running it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from api.app import create_app
from api.tokens import Tokens
from infra.postgres import Pool
from infra.settings import Settings


def description() -> dict[str, Any]:
    """The OpenAPI document. Nothing connects for it, and no command could be carried out."""
    nowhere = Pool("postgresql://nowhere.invalid/nothing")
    app = create_app(
        commands=cast(Any, None),
        vault=cast(Any, None),
        erasures=cast(Any, None),
        read_pool=nowhere,
        log_pool=nowhere,
        models={},
        settings=Settings(),
        clock=lambda: datetime.now(UTC),
        tokens=Tokens(b"k" * 32, lambda: datetime.now(UTC)),
    )
    return app.openapi()
