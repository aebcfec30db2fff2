"""``crm up``: the whole product in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from api.tokens import write_admin_token
from infra import tracing
from infra.cluster import make_data_dir
from infra.definitions import load
from infra.settings import Settings
from projections.catalogue import projections
from workers.loop import Signals
from workers.policies import configured, policing
from workers.projecting import projecting
from workers.sealer import sealing
from workers.serving import housekeeping, listening, serve
from workers.wiring import databases, ledger, read_side


def up(settings: Settings, told: Callable[[str], None]) -> None:
    """Runs until SIGINT or SIGTERM. ``told`` hears where the product is to be found.

    Raises ``SettingsError``, ``CannotListen`` and whatever keeps the databases from being used.
    """
    definitions = load(settings.definitions_file)
    make_data_dir(settings.data_dir)
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, "crm-up")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        listener = stack.enter_context(listening(settings))
        try:
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses))
            write_admin_token(settings.token_file, book.tokens)
            side = stack.enter_context(read_side(addresses, book.doorbell))
            signals.serving = True
        except KeyboardInterrupt:
            return
        models = projections(definitions)
        running = stack.enter_context(
            projecting(side, settings.partitions, signals.stopped, models)
        )
        stack.enter_context(sealing(settings, addresses, signals))
        stack.enter_context(housekeeping(settings, book, signals))
        serve(
            settings,
            definitions,
            addresses,
            book,
            listener,
            signals,
            told,
            running=running,
            beside=partial(policing, configured(settings, definitions), addresses, book),
        )
