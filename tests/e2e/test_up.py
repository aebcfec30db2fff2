"""The command ``crm`` as a user has it: one process that is started, used, stopped and killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[2]


class Product:
    """``crm`` on a data directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def environment(self, **settings: str) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("CRM_")}
        return {**others, "CRM_DATA_DIR": str(self.directory), "CRM_PORT": "0", **settings}

    def up(self, *options: str, **settings: str) -> None:
        """Starts it and waits until it says where it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "up", *options],
            cwd=ROOT,
            env=self.environment(**settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        self.url = address[0]

    def crm(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workers.cli", *arguments],
            cwd=ROOT,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def client(self) -> httpx.Client:
        token = (self.directory / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def register(self, name: str, key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        with self.client() as client:
            return client.post("/v1/customers", json={"name": name}, headers=headers)

    def names(self, min_position: int) -> list[str]:
        with self.client() as client:
            answer = client.get("/v1/customers", params={"min_position": min_position})
        assert answer.status_code == 200, answer.text
        return sorted(item["name"] for item in answer.json()["items"])

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(120)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    @property
    def postmaster(self) -> int | None:
        note = self.directory / "postgres" / "cluster" / "postmaster.pid"
        return int(note.read_text().split("\n")[0]) if note.exists() else None


@pytest.fixture
def product() -> Iterator[Product]:
    with tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        product = Product(Path(folder) / "data")
        yield product
        if product.process is not None:
            product.end(signal.SIGKILL)
        if product.postmaster is not None:
            product.crm("doctor")  # joins what is left, and stops it


def _won(client: httpx.Client, position: int) -> Decimal:
    """The contracts in our currency, from the list of deals that are won, page by page."""
    won = Decimal(0)
    page: str | None = f"/v1/opportunities?status=won&limit=50&min_position={position}"
    while page is not None:
        answer = client.get(page)
        assert answer.status_code == 200, answer.text
        amounts = [item["won_amount"] for item in answer.json()["items"]]
        won += sum(Decimal(each["value"]) for each in amounts if each["currency"] == "CNY")
        page = answer.links.get("next", {}).get("url")
    return won


def test_the_demo_company_adds_up(product: Product) -> None:
    product.up("--demo")
    with product.client() as client:
        position = client.get("/health/ready").json()["position"]
        won = _won(client, position)
        for model in ("first", "last", "linear"):
            parameters: dict[str, str] = {"model": model, "min_position": str(position)}
            told = client.get("/v1/attribution", params=parameters).json()
            credits = [Decimal(campaign["credit"]["value"]) for campaign in told["campaigns"]]
            unattributed = Decimal(told["unattributed"]["value"])
            assert sum(credits) > 0
            assert unattributed > 0
            assert won == Decimal(told["revenue"]["value"]) == sum(credits) + unattributed
        for classification in ("type", "path", "identification", "level"):
            asked = {"classification": classification, "min_position": str(position)}
            told = client.get("/v1/lifecycle", params=asked).json()
            assert sum(row["customers"] for row in told["distribution"]) == told["customers"] > 0
            if classification == "level":
                assert len(told["distribution"]) == 7  # the six, and none
                assert all(row["customers"] > 0 for row in told["distribution"])
    assert product.end(signal.SIGINT) == 0
    product.up("--demo")  # once more: nothing is doubled
    with product.client() as client:
        assert client.get("/health/ready").json()["position"] == position


def test_a_token_allows_what_it_was_made_for(product: Product) -> None:
    product.up()
    made = product.crm("token", "rep-7", "--scope", "read", "--days", "1")
    assert made.returncode == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}", "Idempotency-Key": "k"}
    with httpx.Client(base_url=product.url, headers=headers, timeout=30) as client:
        assert client.get("/v1/customers").status_code == 200
        assert client.post("/v1/customers", json={"name": "Acme"}).status_code == 403
    assert product.crm("token", "rep-7").returncode == 2  # a token for nothing is a mistake


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_within_seconds(product: Product, number: signal.Signals) -> None:
    product.up()
    answer = product.register("Acme")
    assert answer.status_code == 201, answer.text
    begun = time.monotonic()
    assert product.end(number) == 0
    assert time.monotonic() - begun < 10
    assert product.postmaster is None
    control = (product.directory / "postgres" / "cluster" / "global" / "pg_control").stat()
    assert stat.S_IMODE(control.st_mode) == 0o600


def test_after_a_kill_the_next_start_has_everything(product: Product) -> None:
    product.up()
    first = product.register("Acme", key="first")
    product.end(signal.SIGKILL)
    assert product.postmaster is not None
    product.up()
    repeated = product.register("Acme", key="first")
    assert repeated.json() == first.json()
    position = product.register("Bolt").json()["position"]
    assert product.names(position) == ["Acme", "Bolt"]


def test_two_at_once_share_the_data(product: Product) -> None:
    product.up()
    other = Product(product.directory)
    other.up()
    position = other.register("Acme").json()["position"]
    assert product.names(position) == ["Acme"]
    assert other.end(signal.SIGTERM) == 0
    assert product.names(position) == ["Acme"]


def test_secrets_are_for_their_owner_alone(product: Product) -> None:
    product.up()
    for name in ("token", "master.key", "signing.key"):
        assert stat.S_IMODE((product.directory / name).stat().st_mode) == 0o600


def test_an_address_in_use_is_told(product: Product) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = product.crm("up", CRM_PORT=str(port))
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"crm: cannot listen on 127.0.0.1 port {port}: ")
    assert answer.stderr.count("\n") == 1


def test_an_outside_database_is_used(product: Product, database_url: str) -> None:
    product.up(CRM_DATABASE_URL=database_url)
    position = product.register(uuid.uuid4().hex).json()["position"]
    assert product.names(position)
    assert not (product.directory / "postgres").exists()
    assert product.end(signal.SIGTERM) == 0


def test_an_outside_database_that_is_not_there_is_told(product: Product) -> None:
    answer = product.crm("up", CRM_DATABASE_URL="postgresql://crm:hunter2@127.0.0.1:1/crm")
    assert answer.returncode == 1
    assert answer.stderr.startswith("crm: the database cannot be used: ")
    assert answer.stderr.count("\n") == 1
    assert "hunter2" not in answer.stderr


def test_another_number_of_partitions_rebuilds_the_read_models(product: Product) -> None:
    product.up()
    position = product.register("Acme").json()["position"]
    assert product.names(position) == ["Acme"]
    product.end(signal.SIGTERM)
    answer = product.crm("doctor", CRM_PARTITIONS="5")
    assert "has 12 partitions, CRM_PARTITIONS is 5" in answer.stdout
    product.up(CRM_PARTITIONS="5")
    position = product.register("Bolt").json()["position"]
    assert product.names(position) == ["Acme", "Bolt"]


class TestDoctor:
    def test_before_the_first_start(self, product: Product) -> None:
        answer = product.crm("doctor")
        assert answer.returncode == 0
        assert "crm up makes it" in answer.stdout
        assert not product.directory.exists()

    def test_on_a_product_in_use_and_after(self, product: Product) -> None:
        product.up()
        position = product.register("Acme").json()["position"]
        product.names(position)
        for _ in range(2):
            answer = product.crm("doctor")
            assert answer.returncode == 0, answer.stdout
            assert f"log: {position} events" in answer.stdout
            assert "receipts: 1, kept for 30 days" in answer.stdout
            if product.process is not None:
                product.end(signal.SIGTERM)
        assert product.postmaster is None

    def test_it_names_what_is_wrong(self, product: Product) -> None:
        product.up()
        product.end(signal.SIGTERM)
        (product.directory / "token").chmod(0o644)
        answer = product.crm("doctor")
        assert answer.returncode == 1
        assert re.search(r"^PROBLEM  admin token: others may read .*chmod 600", answer.stdout, re.M)


class TestRebuild:
    def test_beside_a_running_product(self, product: Product) -> None:
        product.up()
        position = product.register("Acme").json()["position"]
        assert product.names(position) == ["Acme"]
        answer = product.crm("rebuild", "customers")
        assert answer.returncode == 0, answer.stderr
        assert f"customers: rebuilt up to position {position}" in answer.stdout
        assert "not as before" not in answer.stdout
        position = product.register("Bolt").json()["position"]
        assert product.names(position) == ["Acme", "Bolt"]

    def test_a_name_that_is_not_there(self, product: Product) -> None:
        answer = product.crm("rebuild", "sales")
        assert answer.returncode == 2
        assert "there is none of that name" in answer.stderr
        assert not product.directory.exists()

    def test_nothing_is_parked(self, product: Product) -> None:
        assert product.crm("parked", "funnel").stdout == "funnel: 0 parked keys\n"
        answer = product.crm("parked", "funnel", "--retry", str(uuid.uuid4()))
        assert answer.returncode == 2
