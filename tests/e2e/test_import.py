"""``crm import`` as a user has it: processes that are started, stopped, killed and run again."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.migrations import migrate
from infra.postgres import connect

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared" / "data" / "crm_sales"
HEADER = (
    "id,name,account,owner,stage,amount,currency,opened,expected_close,closed,outcome,"
    "loss_cause,competitor"
)
ENDED = "{n},pump {n},account {a},Ann,bid,100,EUR,2024-01-31,,2024-03-01,won,,"


class Product:
    """``crm`` on a data directory of its own and, where `url` is given, that database."""

    def __init__(self, directory: Path, url: str | None = None) -> None:
        self.directory = directory
        self.url = url
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CRM_")
        } | {"CRM_DATA_DIR": str(directory), "CRM_PORT": "0", "CRM_CURRENCY": "USD"}
        if url is not None:
            self._environment["CRM_DATABASE_URL"] = url

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.cli", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def load(self, file: Path, mapping: str, *options: str) -> subprocess.Popen[str]:
        return self.start("import", "opportunities", str(file), "--mapping", mapping, *options)

    def loaded(self, file: Path, mapping: str, *options: str) -> tuple[int, str]:
        return ended(self.load(file, mapping, *options))

    def query(self, statement: str) -> list[Any]:
        assert self.url is not None
        connection = connect(self.url, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall()
        connection.close()
        return rows

    def count(self, kind: str) -> int:
        found = self.query(f"SELECT count(*) FROM log.events WHERE topic = 'crm.{kind}'")
        return int(found[0][0])

    def client(self, up: subprocess.Popen[str]) -> httpx.Client:
        assert up.stdout is not None
        said = up.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        token = (self.directory / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=address[0], headers=headers, timeout=30)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said to the user."""
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def answered(client: httpx.Client, path: str, **parameters: object) -> Any:
    """The answer, when the read models have come so far."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get(path, params={k: str(v) for k, v in parameters.items()})
        if answer.status_code != 503 or time.monotonic() > deadline:
            assert answer.status_code == 200, answer.text
            return answer.json()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def product(directory: Path, new_database: Callable[[], str]) -> Product:
    url = new_database()
    migrate(url)
    return Product(directory / "data", url)


@pytest.fixture
def sample() -> Path:
    """The public sample data, which is no part of the project."""
    if not SAMPLE.is_dir():
        absent = (
            f"the sample data is not there: {SAMPLE.relative_to(ROOT.parent)} beside the project"
        )
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    return SAMPLE


@pytest.mark.slow
def test_the_sample_twice_with_a_kill_in_the_middle(product: Product, sample: Path) -> None:
    pipeline = sample / "sales_pipeline.csv"
    first = product.load(pipeline, "crm_sales")
    while product.count("opportunity.opened") < 3000:
        assert first.poll() is None
    first.kill()
    ended(first)
    assert product.count("opportunity.opened") < 8800

    code, said = product.loaded(pipeline, "crm_sales")
    assert code == 0, said
    log = product.query("SELECT count(*), max(position) FROM log.events")
    code, said = product.loaded(pipeline, "crm_sales")
    assert (code, "8,800 unchanged, 0 reported" in said) == (0, True), said
    assert product.query("SELECT count(*), max(position) FROM log.events") == log

    with pipeline.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["deal_stage"] for row in rows) == {
        "Won": 4238,
        "Lost": 2473,
        "Engaging": 1589,
        "Prospecting": 500,
    }
    won = sum(Decimal(row["close_value"]) for row in rows if row["deal_stage"] == "Won")
    assert product.count("opportunity.opened") == 8800
    assert product.count("opportunity.stage-advanced") == 8300
    assert product.count("opportunity.contract-signed") == 4238
    assert product.count("opportunity.lost") == 2473
    assert product.count("customer.registered") == 85 + 1425

    up = product.start("up")
    try:
        with product.client(up) as client:
            position = log[0][1]
            pipelines = answered(client, "/v1/pipelines", min_position=position)["items"]
            ids = {item["name"]: item["id"] for item in pipelines}
            funnel = answered(
                client, "/v1/funnel", pipeline_id=ids["hardware sale"], min_position=position
            )
            stages = {stage["stage"]: stage for stage in funnel["stages"]}
            assert stages["Engaging"]["deals"] == 1589
            assert stages["Prospecting"]["deals"] == 500
            prices = _prices(sample)
            for name, stage in stages.items():
                listed = sum(
                    prices[row["product"].replace("GTXPro", "GTX Pro")]
                    for row in rows
                    if row["deal_stage"] == name
                )
                assert Decimal(stage["amount"]["value"]) == listed
            attribution = answered(
                client,
                "/v1/attribution",
                model="first",
                min_position=position,
                **{"from": "2016-01-01", "to": "2018-01-01"},
            )
            assert Decimal(attribution["revenue"]["value"]) == won == Decimal(10_005_534)
    finally:
        up.terminate()
        ended(up)


def _prices(sample: Path) -> dict[str, Decimal]:
    with (sample / "products.csv").open(newline="") as file:
        return {row["product"]: Decimal(row["sales_price"]) for row in csv.DictReader(file)}


def test_two_imports_of_one_file_at_once(product: Product, directory: Path) -> None:
    path = directory / "deals.csv"
    lines = [ENDED.format(n=n, a=n % 3) for n in range(400)]
    path.write_text("\n".join([HEADER, *lines, ""]))
    both = [product.load(path, "generic") for _ in range(2)]
    for process in both:
        code, said = ended(process)
        assert code == 0, said
    assert product.count("opportunity.opened") == 400
    assert product.count("opportunity.contract-signed") == 400
    assert product.count("customer.registered") == 3
    assert product.count("customer.relationship-started") == 3


def test_it_ends_what_is_under_way_and_goes_on(product: Product, directory: Path) -> None:
    path = directory / "deals.csv"
    lines = [ENDED.format(n=n, a=n % 50) for n in range(6000)]
    path.write_text("\n".join([HEADER, *lines, ""]))
    process = product.load(path, "generic")
    while product.count("opportunity.contract-signed") < 100:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 130, said
    assert "Run it again to go on." in said
    there = product.count("opportunity.opened")
    assert product.count("opportunity.contract-signed") == there < 6000


def test_beside_a_running_product(directory: Path) -> None:
    """Both share the embedded server; the read models hear of the import."""
    product = Product(directory / "data")
    path = directory / "deals.csv"
    name = f"pump {uuid.uuid4().hex}"
    path.write_text(
        f"{HEADER}\n1,{name},Acme,,bid,12.50,USD,2024-01-31,,,,,\n2,{name},,,,,,,,,,,\n"
    )
    up = product.start("up")
    try:
        with product.client(up) as client:
            report = directory / "report.csv"
            code, said = product.loaded(path, "generic", "--report", str(report))
            assert code == 1, said
            assert "2 lines: 1 new deals, 0 carried on, 0 unchanged, 1 reported." in said
            assert report.read_text().splitlines()[1].startswith("deals.csv,3,2,")
            deadline = time.monotonic() + 60
            while not (items := answered(client, "/v1/opportunities")["items"]):
                assert time.monotonic() < deadline
            assert [item["name"] for item in items] == [name]
    finally:
        up.terminate()
        ended(up)


def test_orders_and_responses_beside_a_running_product(directory: Path) -> None:
    product = Product(directory / "data")
    orders = directory / "CDNOW_master.txt"
    orders.write_text(
        " customer_id  date number_of_cds  dollar_value\n"
        " 00001 19970101  1   11.77\n 00002 19970112  1   12.00\n 00002 19970112  1   12.00\n"
    )
    responses = directory / "responses.csv"
    responses.write_text(
        "customer,name,campaign,channel,kind,at\n"
        "00001,,spring,web,click,1997-01-01T10:00:00\n"
        "00001,,spring,web,click,1998-01-01T10:00:00\n"
    )
    up = product.start("up")
    try:
        with product.client(up) as client:
            for _ in range(2):
                code, said = ended(
                    product.start("import", "orders", str(orders), "--mapping", "cdnow")
                )
                assert code == 0, said
            assert "0 new orders, 3 unchanged, 0 reported" in said
            key = {"Idempotency-Key": "spring"}
            campaign = {
                "name": "Spring",
                "channel": "web",
                "starts_on": "1997-01-01",
                "ends_on": "1998-12-31",
                "budget": {"value": "100.00", "currency": "USD"},
                "external_id": {"source": "cdnow", "id": "spring"},
            }
            planned = client.post("/v1/campaigns", json=campaign, headers=key)
            assert planned.status_code == 201, planned.text
            code, said = ended(
                product.start("import", "responses", str(responses), "--source", "cdnow")
            )
            assert code == 0, said
            assert "2 new responses" in said
            position = planned.json()["position"] + 2
            path = answered(client, "/v1/lifecycle", classification="path", min_position=position)
            stands = {one["value"]: one["customers"] for one in path["distribution"]}
            assert (stands["order"], stands["repeat"]) == (1, 1)
            found = answered(client, "/v1/campaigns/performance", min_position=position)
            assert [one["responses"] for one in found["campaigns"]] == [2]
    finally:
        up.terminate()
        ended(up)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (HEADER, ["--mapping", "salesforce"], "shipped mappings are crm_sales, generic"),
        (HEADER, [], "--mapping"),
        ("id,name\n", ["--mapping", "generic"], "there is no column 'stage'"),
        ("", ["--mapping", "generic"], "is empty"),
        (HEADER, ["--mapping", "generic", "--report", "/nowhere/report.csv"], "No such file"),
        (HEADER, ["--mapping", "generic", "--report", "report.xls"], "ends in .csv"),
    ],
)
def test_what_cannot_be_done(directory: Path, content: str, options: list[str], said: str) -> None:
    path = directory / "deals.csv"
    path.write_text(content)
    code, told = ended(
        Product(directory / "data").start("import", "opportunities", str(path), *options)
    )
    assert code == 2
    assert said in " ".join(told.split())
    assert "Traceback" not in told
    assert not (directory / "data").exists()
