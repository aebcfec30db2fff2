"""The product as clients see it: the real application on a real database, served by uvicorn."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import httpx
import psycopg2
import uvicorn
import uvloop
from fastapi import FastAPI

from api.app import create_app
from api.tokens import Scope, Tokens
from domain.pipeline import DEFAULT_PIPELINE_ID
from infra.commands import Commands, LoopCRM, Request
from infra.definitions import load
from infra.eventstore.factory import Factory
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool
from infra.settings import Settings
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from tests.e2e.api.clock import SettableClock
from workers.wiring import erasures_of

WAIT = 60.0
MAX_BODY = 65_536


class Product:
    """Started and stopped as a context manager; `url` is where it listens."""

    def __init__(
        self, database_url: str, folder: Path, *, wait_for_key: float = 10.0, **settings: Any
    ) -> None:
        self._wait_for_key = wait_for_key
        self.clock = SettableClock()
        self.settings = Settings(
            data_dir=folder,
            currency="CNY",
            max_body_bytes=MAX_BODY,
            **{"wait_seconds": 5.0, **settings},
        )
        self.tokens = Tokens.of_file(folder / "signing.key", self.clock)
        self.pausing = threading.Event()
        self.database_url = database_url
        self._folder = folder
        self._stack = ExitStack()
        self._stopping = threading.Event()
        self.url = ""
        self.app: FastAPI
        self.crm: LoopCRM
        self.commands: Commands

    def __enter__(self) -> Self:
        self.crm = LoopCRM(
            {
                "PERSISTENCE_MODULE": "infra.eventstore.factory",
                "LOG_DATABASE_URL": self.database_url,
                "MASTER_KEY_FILE": str(self._folder / "master.key"),
            },
            clock=self.clock,
            timezone=ZoneInfo("UTC"),
        )
        self._stack.callback(self.crm.close)
        factory = self.crm.factory
        assert isinstance(factory, Factory)
        self._project(factory)
        self._serve(factory)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._stack.close()

    def _pool(self, role: str, schema: str, size: int = 4) -> Pool:
        pool = Pool(self.database_url, size=size, role=role, search_path=[schema])
        self._stack.callback(pool.close)
        return pool

    def _project(self, factory: Factory) -> None:
        pool = self._pool("crm_projector", "read", size=10)
        for projection in PROJECTIONS.values():
            feed = StoreFeed(factory.pool, factory.doorbell, projection.topics)
            projector = Projector(projection, feed, pool, partitions=self.settings.partitions)
            projector.prepare()
            thread = threading.Thread(target=self._keep_up, args=(projector, feed))
            thread.start()
            self._stack.callback(thread.join)

    def _keep_up(self, projector: Projector, feed: StoreFeed) -> None:
        while not self._stopping.is_set():
            try:
                idle = self.pausing.is_set() or not projector.step()
            except psycopg2.Error:  # the database will be back
                idle = True
            if idle:
                time.sleep(0.005)

    def _serve(self, factory: Factory) -> None:
        self.commands = Commands(self.crm, factory.vault, wait_for_key=self._wait_for_key)
        self.app = create_app(
            commands=self.commands,
            vault=factory.vault,
            erasures=erasures_of(self.settings, factory),
            read_pool=self._pool("crm_reader", "read"),
            log_pool=self._pool("crm_reader", "log"),
            models={name: projection.id for name, projection in PROJECTIONS.items()},
            settings=self.settings,
            clock=self.clock,
            tokens=self.tokens,
            definitions=load(self.settings.definitions_file),
        )
        server = uvicorn.Server(
            uvicorn.Config(self.app, host="127.0.0.1", port=0, log_config=None, access_log=False)
        )

        async def serve() -> None:
            await self.commands.execute(
                self.crm.define_default_pipeline,
                target=DEFAULT_PIPELINE_ID,
                request=Request("system", None),
            )
            await server.serve()
            await self.commands.close()

        thread = threading.Thread(target=lambda: uvloop.run(serve()))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(lambda: setattr(server, "should_exit", True))
        end = time.monotonic() + WAIT
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end:
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def client(self, *scopes: Scope, subject: str = "rep-1") -> Client:
        """A client with a token for `scopes`; without any, with all of them."""
        token = self.tokens.issue(subject, frozenset(scopes or {Scope.ADMIN}))
        return Client(self.url, token)


class Client(httpx.Client):
    """Sends each command with a new idempotency key, and reads what it has just written."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        super().__init__(base_url=url, headers=headers, timeout=WAIT)
        self.position = 0

    def command(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        response = self.post(
            path,
            json={} if body is None else body,
            headers={"Idempotency-Key": key or uuid.uuid4().hex, **(headers or {})},
        )
        if response.is_success:
            self.position = max(self.position, response.json()["position"])
        return response

    def done(self, path: str, body: Any = None) -> dict[str, Any]:
        """The answer of a command that must succeed."""
        response = self.command(path, body)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def read(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The answer of a read that must succeed, with all that this client has written."""
        response = self.get(path, params={"min_position": self.position, **parameters})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The pages of a list, by their links."""
        response = self.get(path, params={"min_position": self.position, **parameters})
        while True:
            assert response.status_code == 200, response.text
            yield response.json()
            following = response.links.get("next")
            if following is None:
                return
            response = self.get(following["url"])
