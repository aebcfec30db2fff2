"""What the handlers of one application share, built in `api.app.create_app`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from api.audit import Replays
from api.commands import Dispatcher
from api.cursors import Cursors
from api.metrics import Metrics
from api.reads import Reads
from api.tokens import Tokens
from domain.definitions import Definitions
from infra.commands import Commands
from infra.erasure import Erasures
from infra.postgres import Pool
from infra.proof.proofs import Proofs
from infra.settings import Settings
from infra.vault import Vault


@dataclass(frozen=True, slots=True)
class Services:
    commands: Commands
    dispatcher: Dispatcher
    reads: Reads
    proofs: Proofs
    vault: Vault
    erasures: Erasures
    log_pool: Pool
    tokens: Tokens
    cursors: Cursors
    metrics: Metrics
    settings: Settings
    running: Callable[[], bool]
    definitions: Definitions
    replays: Replays


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)
