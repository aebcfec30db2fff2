"""Text about a person is nowhere but behind the API; after an erasure, not even there."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.kafka import Topic, read_range
from infra.master_keys import MasterKey
from infra.settings import Settings
from tests.e2e.erasing.running import PATIENCE, Database, Running, database, files_holding

pytestmark = [pytest.mark.database, pytest.mark.slow]

CLEAR = "Siriusquark Cybernetics Works"
PERSON = {
    "name": "Zaphodquux Beeblebroxington",
    "attribute": "Heartofgoldish-1979-Spaceship",
    "new attribute": "Magratheanic-Coastline-42",
    "attribute's name": "favourite-poem-of-vogonity",
    "detail": "Marvinesque said he is ever so depressed",
    "summary": "Mr Prosserly was quite difficult indeed",
}
CONTACT = {
    "contact's name": "Trilliantine Astraesque",
    "email": "trilliantine@astraesque.example",
    "phone": "+44 1632 960123 7788",
}
SECRETS = PERSON | CONTACT
ORDERS = 210


class World:
    """A product with a relay, and a person and a contact of whom there are texts everywhere."""

    def __init__(self, product: Running, settings: Settings, kafka: Path, folder: Path) -> None:
        self.product = product
        self.settings = settings
        self.kafka = kafka
        self.export = folder / "export"

    def tell(self) -> None:
        post = self.product.post
        company = post("/v1/customers", {"name": CLEAR})["id"]
        self.company = f"/v1/customers/{company}"
        contact = {
            "name": CONTACT["contact's name"],
            "email": CONTACT["email"],
            "phone": CONTACT["phone"],
        }
        self.contact_id = post(f"{self.company}/contacts", contact)["contact_id"]
        made = post(
            "/v1/customers",
            {
                "kind": "person",
                "name": PERSON["name"],
                "attributes": {PERSON["attribute's name"]: PERSON["attribute"]},
            },
        )
        self.person_id = made["id"]
        self.person = f"/v1/customers/{self.person_id}"
        signal = {"kind": "complaint", "severity": "low", "detail": PERSON["detail"]}
        post(f"{self.person}/churn-signals", signal)
        amount = {"value": "10.00", "currency": "CNY"}
        deal = {"customer_id": self.person_id, "name": "ship", "amount": amount}
        path = f"/v1/opportunities/{post('/v1/opportunities', deal)['id']}"
        post(f"{path}/loss", {"cause": "price", "competitor": "none"})
        post(f"{path}/review", {"summary": PERSON["summary"]})
        lines = [
            {
                "path": f"{self.person}/orders",
                "key": f"order-{number}",
                "body": {"order_id": str(number), "amount": amount},
            }
            for number in range(ORDERS)
        ]
        with self.product.client() as client:
            assert client.post("/v1/bulk", json=lines).text.count('"status":200') == ORDERS
        change = {"attributes": {"second": PERSON["new attribute"]}}
        self.position = post(f"{self.person}/profile", change)["position"]

    def park(self, admin: Database) -> None:
        """An event that cannot be read, since it holds text that was sealed for another."""
        admin.rows(
            "WITH head AS (UPDATE log.head SET position = position + 1 RETURNING position)"
            " INSERT INTO log.events (position, stream_id, version, topic, class_version,"
            " partition_key, occurred_at, recorded_at, actor, command_id, correlation_id, state)"
            " SELECT head.position, gen_random_uuid(), 1, topic, class_version,"
            " gen_random_uuid(), occurred_at, clock_timestamp(), actor, command_id,"
            " correlation_id, state FROM head, log.events AS event"
            " WHERE event.stream_id = %s AND event.version = 1",
            [self.person_id],
        )
        self.position += 1
        _until(lambda: admin.rows("SELECT count(*) FROM read.parked")[0][0] > 0)

    def records(self) -> list[bytes]:
        """All that is in the topic, once all of the log is."""

        def found() -> list[bytes] | None:
            with Topic(self.settings) as topic:
                state = topic.state()
            if state is None:
                return None
            ranges = {n: (begin, state.ends[n]) for n, begin in enumerate(state.begins)}
            every = [one for part in read_range(self.settings, ranges).values() for one in part]
            positions = {
                int(dict(one.headers)["ce_position"]) for one in every if one.value is not None
            }
            if max(positions, default=0) < self.position:
                return None
            return [one.value + repr(one.headers).encode() for one in every if one.value]

        return _until(found)

    def places(self, admin: Database, *texts: str) -> dict[str, set[str]]:
        """Where each text is found."""
        folders = [self.product.directory, self.product.said, self.export, self.kafka]
        found = admin.holding(*texts)
        records = b"\n".join(self.records())
        for text, files in files_holding(folders, *texts).items():
            found[text] |= files | ({"topic"} if text.encode() in records else set())
        return found

    def tokens(self, admin: Database) -> list[str]:
        """The sealed texts of both persons in the log."""
        rows = admin.rows(
            "SELECT (regexp_matches(convert_from(state, 'UTF8'), %s, 'g'))[1] FROM log.events",
            [rf'"(1\.(?:{self.person_id}|{self.contact_id})\.[^"]+)"'],
        )
        return sorted({row[0] for row in rows})

    def opened(self, admin: Database, tokens: list[str]) -> int:
        """How many a thief opens who has the master key and every table, trying each key."""
        master = MasterKey((self.product.directory / "master.key").read_bytes())
        keys = []
        for subject, wrapped in admin.rows("SELECT subject, wrapped FROM vault.keys"):
            if wrapped is not None:
                key = master.unwrap(subject, bytes(wrapped))
                assert key is not None
                keys.append(AESGCM(key))
        return sum(any(_opens(key, token) for key in keys) for token in tokens)


def _opens(key: AESGCM, token: str) -> bool:

    _, subject, event, field, encoded = token.split(".")
    box = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    try:
        key.decrypt(box[:12], box[12:], f"{subject}|{event}|{field}".encode())
    except InvalidTag:
        return False
    return True


def _until(found: Any) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return result


@pytest.fixture
def world(broker: Any, topic: str, request: pytest.FixtureRequest) -> Iterator[World]:
    kafka = getattr(broker, "_home", None)
    if kafka is None:
        pytest.skip("the files of a Kafka elsewhere cannot be searched")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp")))
        folder.chmod(0o711)
        by_kafka = {"CRM_KAFKA_BOOTSTRAP": broker.bootstrap, "CRM_KAFKA_TOPIC": topic}
        product = Running(folder, **by_kafka, CRM_PARTITIONS="3")
        stack.callback(product.close)
        product.up()
        product.start("relay")
        settings = Settings(kafka_bootstrap=broker.bootstrap, kafka_topic=topic, partitions=3)
        yield World(product, settings, kafka, folder)


def test_before_and_after_an_erasure(world: World) -> None:
    product = world.product
    world.tell()
    with database(product.directory) as admin:
        world.park(admin)
        _until(lambda: admin.rows("SELECT count(*) FROM log.snapshots")[0][0] > 0)
        shown = product.get(world.person, min_position=world.position - 1)
        assert shown["name"] == PERSON["name"]
        assert shown["attributes"] == {
            PERSON["attribute's name"]: PERSON["attribute"],
            "second": PERSON["new attribute"],
        }
        product.crm("export", str(world.export))

        admin.rows("CHECKPOINT")
        found = world.places(admin, CLEAR, *SECRETS.values())
        clear = found.pop(CLEAR)
        assert {"log.events", "read.customer_fact", "topic"} <= clear
        for folder in (product.directory / "postgres", world.kafka, world.export):
            assert any(place.startswith(str(folder)) for place in clear), folder
        assert found == {secret: set() for secret in SECRETS.values()}
        assert admin.holding(world.person_id)[world.person_id] >= {
            "log.events", "log.snapshots", "log.receipts", "read.customer_period", "read.parked"
        }  # fmt: skip
        tokens = world.tokens(admin)
        assert len(tokens) == 8
        assert world.opened(admin, tokens) == 8

        kept = admin.rows(
            "SELECT subject, wrapped, master, created_at FROM vault.keys WHERE subject = ANY(%s)",
            [[UUID(world.person_id), UUID(world.contact_id)]],
        )
        contact = f"{world.company}/contacts/{world.contact_id}"
        certificates = [
            product.post(f"{path}/erasure", {"reason": "Article 17"})
            for path in (contact, world.person)
        ]
        world.position = max(certificate["position"] for certificate in certificates)
        fields = [certificate["destroyed"]["sealed_fields"] for certificate in certificates]
        assert fields == [3, 5]  # the parked event is of another customer
        for certificate in certificates:
            (handout,) = certificate["handouts"]
            assert (handout["kind"], handout["personal"]) == ("export", False)
        _gone(world)
        admin.rows("CHECKPOINT")
        found = world.places(admin, *SECRETS.values())
        assert found == {secret: set() for secret in SECRETS.values()}
        assert world.opened(admin, tokens) == 0
        assert admin.rows(
            "SELECT count(*) FROM log.snapshots WHERE stream_id = %s", [world.person_id]
        ) == [(0,)]

    assert product.end() == 0
    with database(product.directory) as admin:
        _restore(admin, kept)
        assert world.opened(admin, tokens) == 8
    product.up()
    with database(product.directory) as admin:
        assert world.opened(admin, tokens) == 0
        assert admin.rows("SELECT count(*) FROM vault.erasures WHERE position IS NULL") == [(0,)]
    _gone(world)
    for certificate in certificates:
        again = product.get(f"/v1/audit/erasures/{certificate['subject']}")
        assert again == certificate

    assert "keys are wrapped with a new master key" in product.crm("keys", "rotate")
    master = MasterKey((product.directory / "master.key").read_bytes())
    for subject, wrapped, _, _ in kept:
        assert master.unwrap(subject, bytes(wrapped)) is None  # a copy in an old backup


def _gone(world: World) -> None:
    company = world.product.get(world.company, min_position=world.position)
    (contact,) = company["contacts"]
    assert {contact["name"], contact["email"], contact["phone"]} == {"[erased]"}
    person = world.product.get(world.person, min_position=world.position)
    assert (person["name"], person["attributes"]) == ("[erased]", {})


def _restore(admin: Database, kept: list[Any]) -> None:
    """The vault as a backup of before the erasures has it."""
    admin.rows("DELETE FROM vault.erasures")
    for subject, wrapped, master, created_at in kept:
        admin.rows("DELETE FROM vault.keys WHERE subject = %s", [subject])
        admin.rows(
            "INSERT INTO vault.keys (subject, wrapped, master, created_at) VALUES (%s, %s, %s, %s)",
            [subject, wrapped, master, created_at],
        )
