"""``crm up``: the whole product in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

import structlog
import uvicorn
import uvloop

from api.app import create_app
from api.serving import avoid_long_pauses
from api.tokens import write_admin_token
from infra.cluster import make_data_dir
from infra.postgres import Pool
from infra.settings import Settings
from projections.catalogue import PROJECTIONS
from workers.loop import Signals, Worker
from workers.projecting import projecting
from workers.wiring import Databases, Ledger, databases, ledger, now, read_side

log = structlog.get_logger(__name__)

GRACE = 5
"""Seconds that requests under way are given at the end."""

HOUSEKEEPING = 3600.0
"""Seconds between two looks for receipts that are old enough to go."""


class CannotListen(Exception):
    """The address cannot be listened on; the message says why."""


def up(settings: Settings, told: Callable[[str], None]) -> None:
    """Runs until SIGINT or SIGTERM. ``told`` hears where the product is to be found.

    Raises ``CannotListen`` and whatever keeps the databases from being used.
    """
    make_data_dir(settings.data_dir)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        listener = stack.enter_context(_listener(settings))
        try:
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses))
            write_admin_token(settings.token_file, book.tokens)
            side = stack.enter_context(read_side(addresses, book.doorbell))
            signals.serving = True
        except KeyboardInterrupt:
            return
        workers = stack.enter_context(projecting(side, settings.partitions, signals.stopped))
        housekeeper = Worker(
            "housekeeping",
            lambda: _forget_receipts(book, settings.receipt_days),
            stopped=signals.stopped,
            idle=lambda: signals.stopped.wait(HOUSEKEEPING),
        )
        housekeeper.start()
        stack.callback(housekeeper.join)
        stack.callback(signals.stopped.set)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, addresses, book, workers, listener, signals, told))


def _forget_receipts(book: Ledger, days: int) -> None:
    forgotten = book.crm.recorder.forget_receipts(days)  # type: ignore[attr-defined]
    if forgotten:
        log.info("forgot old receipts", receipts=forgotten)


async def _serve(
    settings: Settings,
    addresses: Databases,
    book: Ledger,
    workers: list[Worker],
    listener: socket.socket,
    signals: Signals,
    told: Callable[[str], None],
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
            read_pool=pools["read"],
            log_pool=pools["log"],
            models={name: projection.id for name, projection in PROJECTIONS.items()},
            settings=settings,
            clock=now,
            tokens=book.tokens,
            running=lambda: all(worker.is_alive() for worker in workers),
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


def _listener(settings: Settings) -> socket.socket:
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
