"""A server for the load: the API alone, or an empty handler under the same server.

Argument: `api` or `empty`. Settings come from the environment. Prints the port it listens on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import ExitStack

import uvicorn
import uvloop
from fastapi import FastAPI, Response

from api.app import create_app
from api.serving import avoid_long_pauses
from api.tokens import write_admin_token
from infra.postgres import Pool
from infra.settings import load
from projections.catalogue import PROJECTIONS
from workers.wiring import Ledger, databases, ledger, now


def empty() -> FastAPI:
    """An app whose one handler does nothing."""
    app = FastAPI()

    @app.post("/empty")
    async def nothing() -> Response:
        return Response(b"{}", media_type="application/json")

    return app


async def serve(app: FastAPI, listener: socket.socket, book: Ledger | None) -> None:
    """Until it is told to stop."""
    if book is not None:
        await book.prepare()
    config = uvicorn.Config(
        app, http="httptools", ws="none", log_config=None, access_log=False, server_header=False
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    """One server."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        book = None
        if sys.argv[1] == "empty":
            app = empty()
        else:
            settings = load()
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses))
            write_admin_token(settings.token_file, book.tokens)
            read, log = (
                Pool(url, role="crm_reader", search_path=[schema])
                for schema, url in (("read", addresses.read), ("log", addresses.log))
            )
            app = create_app(
                commands=book.commands,
                vault=book.vault,
                erasures=book.erasures,
                read_pool=read,
                log_pool=log,
                models={name: projection.id for name, projection in PROJECTIONS.items()},
                settings=settings,
                clock=now,
                tokens=book.tokens,
                running=lambda: True,
            )
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        avoid_long_pauses()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(app, listener, book))


if __name__ == "__main__":
    main()
