"""The application: built by plain constructor calls; nothing connects before it is asked."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.audit import Replays
from api.commands import Command, Dispatcher
from api.cursors import Cursors
from api.endpoint import CommandIndex, CommandRoute
from api.errors import add_handlers
from api.metrics import Metrics, Observed
from api.openapi import DOCUMENT, describe
from api.plots import Pictures
from api.reads import Reads
from api.routes import (
    attribution,
    audit,
    bulk,
    cadence,
    campaigns,
    care,
    customers,
    definitions,
    exchange_rates,
    forecast,
    funnel,
    health,
    lifecycle,
    members,
    opportunities,
    performance,
    pipelines,
    proof,
    segments,
    value,
)
from api.routes import (
    erasures as erasure_routes,
)
from api.services import Services
from api.tokens import Tokens
from domain.definitions import BUILT_IN, Definitions
from infra import handouts
from infra.commands import Commands
from infra.erasure import Erasures
from infra.postgres import Pool
from infra.proof.proofs import Proofs
from infra.settings import Settings
from infra.vault import Vault

COMMANDS: tuple[Command, ...] = (
    *opportunities.COMMANDS,
    *customers.COMMANDS,
    *campaigns.COMMANDS,
    *pipelines.COMMANDS,
    *exchange_rates.COMMANDS,
    *members.COMMANDS,
)
"""All commands there are."""

_READS = (
    cadence,  # before the opportunities, whose ids would else be taken for it
    opportunities,
    customers,
    campaigns,
    pipelines,
    funnel,
    forecast,
    lifecycle,
    value,
    care,
    performance,
    segments,
    attribution,
    definitions,
    exchange_rates,
    members,
)

DESCRIPTION = """
Customers, deals and campaigns as an append-only log of facts, and read models that answer at any
date (`as_of`), as known at any date (`known_at`).

Commands are `POST`s. Each carries an `Idempotency-Key`, so that it is done once, however often it
is sent, and answers with the `position` of what it recorded; a read with that as `min_position`
includes it. Errors are RFC 9457 problems with a stable `type`.
"""


def dispatcher(commands: Commands, tokens: Tokens) -> Dispatcher:
    """Carries out commands by path, in this process: for imports, and for the API itself."""
    return Dispatcher(commands, COMMANDS, tokens.derived_key("receipts"))


def create_app(
    *,
    commands: Commands,
    vault: Vault,
    erasures: Erasures,
    read_pool: Pool,
    log_pool: Pool,
    models: Mapping[str, str],
    settings: Settings,
    clock: Callable[[], datetime],
    tokens: Tokens,
    running: Callable[[], bool] = lambda: True,
    definitions: Definitions = BUILT_IN,
) -> FastAPI:
    """The API.

    `read_pool` finds the tables of the read models, `log_pool` those of the log; both may only
    read, but for noting what is handed out; `models` is the id of each read model's positions;
    `running` tells whether projections are being kept up by this process; `definitions` are those
    in force.
    """
    metrics = Metrics()
    reads = Reads(
        read_pool,
        log_pool,
        models,
        clock,
        wait_seconds=settings.wait_seconds,
        threads=settings.pool_size,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        reads.close()

    app = FastAPIOffline(
        title="crm-ledger",
        version="1",
        description=DESCRIPTION.strip(),
        openapi_url=DOCUMENT,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `Observed` has ours
    )
    app.state.services = Services(
        commands=commands,
        dispatcher=dispatcher(commands, tokens),
        reads=reads,
        proofs=Proofs(log_pool),
        vault=vault,
        erasures=erasures,
        log_pool=log_pool,
        tokens=tokens,
        cursors=Cursors(tokens.derived_key("cursors")),
        metrics=metrics,
        settings=settings,
        running=running,
        definitions=definitions,
        replays=Replays(reads, log_pool, vault, handouts.Replayed(log_pool)),
    )
    routes = [CommandRoute(command) for command in COMMANDS]
    app.router.routes += routes
    for resource in (*_READS, audit, proof, erasure_routes, bulk, health):
        app.router.routes.extend(resource.router.routes)
    app.add_middleware(Pictures)
    add_handlers(app)
    describe(app, (*bulk.SCHEMAS, *audit.SCHEMAS))
    # Around FastAPI's own layers, which do nothing for a command but cost a twentieth of its time.
    inner = app.build_middleware_stack()
    app.middleware_stack = Observed(CommandIndex(inner, routes), metrics)
    return app
