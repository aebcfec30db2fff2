"""The API over HTTP: what ``crm api`` runs alone and ``crm up`` beside everything else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext

import structlog
import uvicorn
import uvloop

from api.app import create_app
from api.serving import avoid_long_pauses
from api.tokens import write_admin_token
from domain.definitions import Definitions
from infra import tracing
from infra.cluster import make_data_dir
from infra.definitions import load as load_definitions
from infra.postgres import Pool
from infra.settings import Settings
from projections.catalogue import projections
from workers.loop import Signals, Worker
from workers.wiring import Databases, Ledger, databases, ledger, now

log = structlog.get_logger(__name__)

GRACE = 5
"""Seconds that requests under way are given at the end."""

HOUSEKEEPING = 3600.0
"""Seconds between two looks for receipts that are old enough to go."""


class CannotListen(Exception):
    """The address cannot be listened on; the message says why."""


def api(settings: Settings, told: Callable[[str], None]) -> None:
    """``crm api``: takes commands and answers reads, until SIGINT or SIGTERM.

    Read models are kept up by other processes. ``told`` hears where it listens. Raises
    ``SettingsError``, ``CannotListen`` and whatever keeps the databases from being used.
    """
    definitions = load_definitions(settings.definitions_file)
    make_data_dir(settings.data_dir)
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, "crm-api")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        listener = stack.enter_context(listening(settings))
        try:
            addresses = stack.enter_context(databases(settings, administering=False))
            book = stack.enter_context(ledger(settings, addresses))
            write_admin_token(settings.token_file, book.tokens)
            signals.serving = True
        except KeyboardInterrupt:
            return
        with housekeeping(settings, book, signals):
            serve(settings, definitions, addresses, book, listener, signals, told)


@contextmanager
def housekeeping(settings: Settings, book: Ledger, signals: Signals) -> Iterator[None]:
    """Old receipts are deleted now and then while this is entered; its end stops the process."""
    worker = Worker(
        "housekeeping",
        lambda: _forget_receipts(book, settings.receipt_days),
        stopped=signals.stopped,
        idle=lambda: signals.stopped.wait(HOUSEKEEPING),
    )
    worker.start()
    try:
        yield
    finally:
        signals.stopped.set()
        worker.join()


def _forget_receipts(book: Ledger, days: int) -> None:
    forgotten = book.crm.recorder.forget_receipts(days)  # type: ignore[attr-defined]
    if forgotten:
        log.info("forgot old receipts", receipts=forgotten)


def serve(
    settings: Settings,
    definitions: Definitions,
    addresses: Databases,
    book: Ledger,
    listener: socket.socket,
    signals: Signals,
    told: Callable[[str], None],
    running: Callable[[], bool] = lambda: True,
    beside: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> None:
    """Serves until the process is told to stop. ``running``: see ``create_app``.

    ``beside`` is entered, on the event loop, while it serves.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            _serve(
                settings,
                definitions,
                addresses,
                book,
                listener,
                signals,
                told,
                running,
                beside,
            )
        )


async def _serve(
    settings: Settings,
    definitions: Definitions,
    addresses: Databases,
    book: Ledger,
    listener: socket.socket,
    signals: Signals,
    told: Callable[[str], None],
    running: Callable[[], bool],
    beside: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    with ExitStack() as stack:
        pools = {}
        for schema, url in (("read", addresses.read), ("log", addresses.log)):
            pools[schema] = Pool(
                url,
                size=settings.pool_size,
                role="crm_reader",
                search_path=[schema],
                application_name="crm-api",
            )
            stack.callback(pools[schema].close)
        app = create_app(
            commands=book.commands,
            vault=book.vault,
            erasures=book.erasures,
            read_pool=pools["read"],
            log_pool=pools["log"],
            models={name: model.id for name, model in projections(definitions).items()},
            settings=settings,
            clock=now,
            tokens=book.tokens,
            running=running,
            definitions=definitions,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        try:
            await book.prepare()
            if signals.stopped.is_set():
                return
            avoid_long_pauses()
            async with beside():
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                while not server.started and not serving.done():
                    await asyncio.sleep(0.01)
                if signals.stopped.is_set():  # before the server had taken the signals over
                    server.should_exit = True
                elif server.started:
                    told(f"crm-ledger listens on {_address(listener)}")
                    told(f"The admin token is in {settings.token_file}")
                await serving
        finally:
            await book.commands.close()


def listening(settings: Settings) -> socket.socket:
    """The socket that the API is served on. Raises ``CannotListen``."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise CannotListen(
            f"cannot listen on {settings.host} port {settings.port}:"
            f" {error.strerror or error}. CRM_HOST and CRM_PORT choose another address."
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
