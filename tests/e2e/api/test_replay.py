"""The log for those who audit it: whole, filtered, resumed, with and without personal text."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from api.tokens import Scope
from infra.history import reading
from infra.history.reading import Reading
from infra.history.texts import Opened
from infra.ids import event_id
from infra.postgres import connect
from tests.bench import company
from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product

Line = dict[str, Any]


@pytest.fixture
def auditor(product: Product) -> Iterator[Client]:
    """May audit, and nothing else."""
    with product.client(Scope.AUDIT, subject="auditor") as client:
        yield client


def replay(client: Client, **parameters: Any) -> tuple[list[Line], Line]:
    """The lines, and the last one."""
    renamed = {name.rstrip("_"): value for name, value in parameters.items()}
    response = client.get("/v1/audit/events", params=renamed)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    *lines, last = (json.loads(line) for line in response.text.splitlines())
    return lines, last


def run(product: Product, statement: str, *values: Any) -> list[Any]:
    connection = connect(product.database_url, autocommit=True)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def kind(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:crm-ledger:problem:")


@pytest.fixture
def told(admin: Client) -> str:
    """A deal with some history, and things beside it."""
    company = customer(admin)
    campaign(admin, "submit")
    sold = deal(admin, customer_id=company, name="rolling mill")
    admin.done(f"/v1/opportunities/{sold}/stage", {"stage": "bid", "reason": "they asked for it"})
    admin.done(f"/v1/opportunities/{sold}/amount", {"amount": amount("2000.00")})
    return sold


def test_the_whole_log_in_order(admin: Client, auditor: Client, told: str) -> None:
    lines, last = replay(auditor)
    assert [line["position"] for line in lines] == list(range(1, admin.position + 1))
    assert last == {"next_after": admin.position, "end": admin.position}
    moved = next(line for line in lines if line["type"] == "crm.opportunity.stage-advanced"
                 and line["stream"]["id"] == told)  # fmt: skip
    assert moved["stream"] == {"kind": "opportunity", "id": told}
    assert (moved["version"], moved["class_version"], moved["actor"]) == (2, 1, "rep-1")
    assert moved["reason"] == "they asked for it"
    moves = {"from_stage": "prospect", "to_stage": "bid", "pipeline_revision": 1}
    assert moved["data"] == {**moves, "approved_by": "rep-1"}
    assert moved["event_id"] == str(event_id(told, 2))
    assert moved["caused_by"] is None
    assert datetime.fromisoformat(moved["recorded_at"]).utcoffset() == timedelta(0)


def test_taken_up_anywhere_the_lines_are_the_same(auditor: Client, told: str) -> None:
    whole = auditor.get("/v1/audit/events").text.splitlines()[:-1]
    for size in (1, 3, 7):
        resumed: list[str] = []
        after = 0
        while True:
            response = auditor.get("/v1/audit/events", params={"after": after, "limit": size})
            *lines, last = response.text.splitlines()
            resumed += lines
            after = json.loads(last)["next_after"]
            if after == len(whole):
                break
            assert len(lines) == size
        assert resumed == whole


def test_batches_leave_no_seam(auditor: Client, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = auditor.get("/v1/audit/events").content
    mine = auditor.get("/v1/audit/events", params={"actor": "rep-1"}).content
    monkeypatch.setattr(reading, "BATCH", 2)
    assert auditor.get("/v1/audit/events").content == whole
    for size, found in ((1, 2), (2, 3), (3, 100)):
        monkeypatch.setattr(reading, "BATCH", size)
        monkeypatch.setattr(reading, "_WINDOW", size)
        monkeypatch.setattr(reading, "_FOUND", found)
        assert auditor.get("/v1/audit/events", params={"actor": "rep-1"}).content == mine


@pytest.mark.parametrize("filtered", [False, True])
def test_a_batch_is_bounded_in_bytes(
    auditor: Client, told: str, monkeypatch: pytest.MonkeyPatch, filtered: bool
) -> None:
    parameters = {"actor": "rep-1"} if filtered else {}
    whole = auditor.get("/v1/audit/events", params=parameters).content
    monkeypatch.setattr(reading, "BATCH_BYTES", 300)
    text = reading._BATCH_OF.replace(str(4 * 1024 * 1024), "300")
    monkeypatch.setattr(reading, "_BATCH_OF", text)
    taken: list[int] = []
    read = Reading.next

    def counted(self: Reading) -> Any:
        rows = read(self)
        taken.append(sum(len(row.state) for row in rows[:-1]))
        return rows

    monkeypatch.setattr(Reading, "next", counted)
    assert auditor.get("/v1/audit/events", params=parameters).content == whole
    assert len(taken) > 1
    assert max(taken) <= 300


def test_filters(admin: Client, product: Product, auditor: Client, told: str) -> None:
    conversation = str(uuid.uuid4())
    with product.client(subject="rep-2") as other:
        answer = other.command(
            f"/v1/opportunities/{told}/amount",
            {"amount": amount("3000.00")},
            headers={"X-Correlation-ID": conversation},
        ).json()
    (line,), last = replay(auditor, correlation_id=conversation)
    assert (line["position"], line["version"]) == (answer["position"], answer["version"])
    assert last["next_after"] == last["end"]
    assert replay(auditor, command_id=line["command_id"])[0] == [line]
    assert line in replay(auditor, actor="rep-2")[0]
    assert {one["actor"] for one in replay(auditor, actor="rep-2")[0]} == {"rep-2"}
    assert [one["version"] for one in replay(auditor, stream_id=told)[0]] == [1, 2, 3, 4]
    changed = replay(auditor, type="crm.opportunity.amount-changed", stream_id=told)[0]
    assert [one["version"] for one in changed] == [3, 4]
    both = ["crm.opportunity.amount-changed", "crm.opportunity.opened"]
    assert [one["version"] for one in replay(auditor, type=both, stream_id=told)[0]] == [1, 3, 4]
    assert replay(auditor, type="crm.customer.churned")[0] == []


def test_by_time_of_recording_half_open(auditor: Client, told: str) -> None:
    first, *_, last = replay(auditor, stream_id=told)[0]
    found, _ = replay(auditor, from_=first["recorded_at"], until=last["recorded_at"])
    assert found[0]["recorded_at"] >= first["recorded_at"]
    assert found[0]["position"] <= first["position"] <= found[-1]["position"]
    assert found[-1]["position"] < last["position"]
    assert found[-1]["recorded_at"] < last["recorded_at"]
    later, end = replay(auditor, from_=last["recorded_at"])
    assert later[-1]["position"] == end["end"] == end["next_after"]
    assert last["position"] in [line["position"] for line in later]


def test_beyond_the_end_there_is_nothing(admin: Client, auditor: Client, told: str) -> None:
    for after in (admin.position, admin.position + 10, 2**63 - 1):
        lines, last = replay(auditor, after=after)
        assert (lines, last) == ([], {"next_after": after, "end": admin.position})
    lines, last = replay(auditor, to=admin.position + 100)
    assert last["next_after"] == admin.position == len(lines)
    assert replay(auditor, after=2, to=4)[1]["next_after"] == 4


@pytest.mark.parametrize(
    "query",
    [
        "after=5&to=4",
        "after=-1",
        "after=x",
        "after=9223372036854775808",
        "to=1.5",
        "limit=0",
        "from=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "from=2026-01-01T00:00:00",
        "until=2026-01-01",
        "type=crm.opportunity.exploded",
        "type=",
        "actor=",
        "actor=a%00b",
        "command_id=x",
        "correlation_id=1",
        "unknown=1",
    ],
)
def test_what_cannot_be_asked_of_the_log(auditor: Client, query: str) -> None:
    response = auditor.get(f"/v1/audit/events?{query}")
    assert (response.status_code, kind(response)) == (422, "invalid-request")


@pytest.mark.parametrize(
    "query",
    [
        "state?version=0",
        "state?version=1&as_of=2026-01-01T00:00:00Z",
        "state?version=1&known_at=7",
        "state?as_of=2026-01-01T00:00:00",
        "state?known_at=2026-01-01T00:00:00",
        "difference",
        "difference?from=1",
        "difference?from=2&to=1",
        "difference?from=1&to=2026-01-01T00:00:00Z",
        "difference?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "difference?from=2026-01-02T00:00:00&to=2026-01-03T00:00:00",
        "difference?from=1&to=2&known_at=3",
        "difference?from=1&to=99999999999",
    ],
)
def test_what_cannot_be_asked_of_a_stream(auditor: Client, told: str, query: str) -> None:
    response = auditor.get(f"/v1/audit/streams/{told}/{query}")
    assert (response.status_code, kind(response)) == (422, "invalid-request")


def test_what_there_is_none_of(auditor: Client) -> None:
    none = uuid.uuid4()
    for path in (
        f"streams/{none}",
        f"streams/{none}/state",
        f"streams/{none}/state?version=3",
        f"streams/{none}/difference?from=0&to=1",
        f"commands/{none}",
    ):
        response = auditor.get(f"/v1/audit/{path}")
        assert (response.status_code, kind(response)) == (404, "not-found")
    assert auditor.get("/v1/audit/streams/x").status_code == 422


def test_only_for_those_who_audit(product: Product, told: str) -> None:
    with product.client(Scope.READ, Scope.PERSONAL, Scope.COMMAND, Scope.APPROVE) as other:
        for path in (
            "events",
            f"streams/{told}",
            f"streams/{told}/state",
            f"streams/{told}/difference?from=0&to=1",
            f"commands/{uuid.uuid4()}",
        ):
            response = other.get(f"/v1/audit/{path}")
            assert (response.status_code, kind(response)) == (403, "forbidden")
            assert 'scope="audit"' in response.headers["www-authenticate"]


def test_personal_text(admin: Client, product: Product, auditor: Client) -> None:
    handed: list[dict[str, Any]] = []
    product.app.state.services.replays._told = lambda **told: handed.append(told)
    person = customer(admin, name="Li Si", kind="person")
    owner = customer(admin)
    contact = admin.done(
        f"/v1/customers/{owner}/contacts", {"name": "Zhang San", "email": "z@harbour.example"}
    )
    other = customer(admin, name="Wang Wu", kind="person")
    since = admin.position - 4

    def seen(client: Client) -> list[Any]:
        lines, _ = replay(client, after=since)
        data = [line["data"] for line in lines]
        return [
            data[0]["personal_name"],
            data[2]["name"],
            data[2]["email"],
            data[3]["personal_name"],
        ]

    with product.client(Scope.AUDIT, Scope.PERSONAL, subject="lawyer") as lawyer:
        assert seen(auditor) == ["[personal]"] * 4
        assert handed == []
        assert seen(lawyer) == ["Li Si", "Zhang San", "z@harbour.example", "Wang Wu"]
        assert handed == [
            {
                "kind": "replay",
                "actor": "lawyer",
                "first": since + 1,
                "last": admin.position,
            }
        ]
        state = lawyer.get(f"/v1/audit/streams/{person}/state").json()
        assert state["state"]["personal_name"] == "Li Si"
        assert len(handed) == 2

        for erased in (person, contact["contact_id"]):
            run(
                product,
                "UPDATE vault.keys SET wrapped = NULL, destroyed_at = now() WHERE subject = %s",
                erased,
            )
        expected = ["[erased]", "[erased]", "[erased]"]
        assert seen(lawyer) == [*expected, "Wang Wu"]
        assert seen(auditor) == [*expected, "[personal]"]
        state = lawyer.get(f"/v1/audit/streams/{person}/state").json()
        assert state["state"]["personal_name"] == "[erased]"
        run(product, "DELETE FROM vault.keys WHERE subject = %s", other)
        services = product.app.state.services
        services.vault._keys.clear()
        assert seen(lawyer) == [*expected, "[no key]"]


def test_what_a_handout_costs_is_paid_before(
    admin: Client, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be recorded nothing leaves."""

    def broken(**_: Any) -> None:
        raise RuntimeError("no room")

    customer(admin, name="Li Si", kind="person")
    monkeypatch.setattr(product.app.state.services.replays, "_told", broken)
    with product.client(Scope.AUDIT, Scope.PERSONAL) as lawyer:
        response = lawyer.get("/v1/audit/events", params={"after": admin.position - 1})
        assert (response.status_code, kind(response)) == (500, "internal-error")
        assert "Li Si" not in response.text


def poison(product: Product, stream: str, version: int, state: bytes, topic: str) -> int:
    """Puts an event at the end of the log that no program of today reads."""
    (position,) = run(
        product,
        "WITH h AS (UPDATE log.head SET position = position + 1 RETURNING position, recorded_at)"
        " INSERT INTO log.events (position, stream_id, version, topic, class_version,"
        "  partition_key, occurred_at, recorded_at, actor, command_id, correlation_id, state)"
        " SELECT position, %s, %s, %s, 1, %s, recorded_at, recorded_at, 'nobody', %s, %s, %s FROM h"
        " RETURNING position",
        stream, version, topic, stream, str(uuid.uuid4()), str(uuid.uuid4()), state,
    )[0]  # fmt: skip
    return int(position)


def test_an_event_that_cannot_be_read(start_product: Callable[..., Product]) -> None:
    product = start_product()
    with product.client() as client:
        good = customer(client)
        states = [b"\xff not JSON", b'{"order_id": 7}', b"{}", b'{"cause": "price"}\n']
        topics = ["order-placed", "order-placed", "exploded", "churned"]
        positions = [
            poison(product, good, 2 + n, state, f"crm.customer.{topic}")
            for n, (state, topic) in enumerate(zip(states, topics, strict=True))
        ]
        lines, last = replay(client)
        assert last["next_after"] == last["end"] == positions[-1] == len(lines)
        for position, state in list(zip(positions, states, strict=True))[:3]:
            line = lines[position - 1]
            assert line["data"] is None
            assert base64.b64decode(line["state_base64"]) == state
            assert line["error"]
        assert lines[-1]["data"] == {"cause": "price"}
        assert "error" not in lines[-1]

        path = f"/v1/audit/streams/{good}"
        assert client.get(f"{path}/state?version=1").status_code == 200
        response = client.get(f"{path}/state")
        assert (response.status_code, kind(response)) == (409, "event-unreadable")
        assert (response.json()["position"], response.json()["version"]) == (positions[0], 2)
        assert client.get(f"{path}/difference?from=0&to=2").status_code == 409
        items = client.get(path).json()["items"]
        assert [item["version"] for item in items] == [1, 2, 3, 4, 5]


def test_a_changed_text_holds_up_nothing(start_product: Callable[..., Product]) -> None:
    """A sealed text that was tampered with, and one that was moved to another place."""
    product = start_product()
    with product.client() as client:
        one, other = (customer(client, name=f"Li {n}", kind="person") for n in "AB")
        (token,) = run(
            product,
            "SELECT convert_from(state, 'UTF8')::json->>'personal_name' FROM log.events"
            " WHERE stream_id = %s",
            one,
        )[0]
        tampered = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
        run(
            product,
            "UPDATE log.events SET state = replace(convert_from(state, 'UTF8'), %s, %s)::bytea"
            " WHERE stream_id = %s",
            token, tampered, one,
        )  # fmt: skip
        moved = json.dumps({"personal_name": token, "kind": "person", "identified": True}).encode()
        poison(product, other, 2, moved, "crm.customer.profile-changed")
        lines, last = replay(client)
        assert last["next_after"] == last["end"]
        first, second, third = lines[-3:]
        assert "does not fit its key" in first["error"]
        assert second["data"]["personal_name"] == "Li B"
        assert "another place" in third["error"]
        with product.client(Scope.AUDIT) as auditor:  # who sees no text misses nothing
            assert replay(auditor)[0][-3]["data"]["personal_name"] == "[personal]"


def test_the_stream_of_one_thing_in_pages(auditor: Client, told: str) -> None:
    path = f"/v1/audit/streams/{told}"
    whole = auditor.get(path).json()
    assert [item["version"] for item in whole["items"]] == [1, 2, 3]
    assert (whole["next"], whole["end"]) == (None, 3)
    assert whole["items"] == replay(auditor, stream_id=told)[0]
    first = auditor.get(path, params={"limit": 2}).json()
    assert (first["items"], first["next"]) == (whole["items"][:2], 2)
    rest = auditor.get(path, params={"after": 2, "limit": 2}).json()
    assert (rest["items"], rest["next"]) == (whole["items"][2:], None)
    assert auditor.get(path, params={"after": 9}).json()["items"] == []


@pytest.fixture
def long(start_product: Callable[..., Product]) -> Product:
    """A product whose log is long enough to fill what lies between it and a client."""
    product = start_product()
    product.pausing.set()
    run(product, "TRUNCATE log.events")
    company.fill(product.database_url, 30_000)
    return product


def test_a_client_that_stalls_and_goes(long: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it takes nothing, few batches are read and no connection is held; when it goes, the
    work ends."""
    read, taken = Reading.next, []
    enough = threading.Event()

    def counted(self: Reading) -> Any:
        rows = read(self)
        taken.append(len(rows))
        enough.set()
        return rows

    monkeypatch.setattr(Reading, "next", counted)
    replays = long.app.state.services.replays
    token = long.tokens.issue("slow", frozenset({Scope.ADMIN}))
    host, port = long.url.removeprefix("http://").split(":")
    asked = f"GET /v1/audit/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    with long.client() as other, socket.socket() as client:

        def meanwhile() -> None:
            for _ in range(20):  # the loop is free
                assert other.get("/health/live").status_code == 200

        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(asked.encode())
        assert enough.wait(60)
        pool, end = replays.pool, time.monotonic() + 60
        settled = -1
        while settled != len(taken) or len(pool._idle) != pool._count:
            assert time.monotonic() < end
            settled = len(taken)
            meanwhile()
        assert sum(taken) < 30_000
        assert replays._sending == 1
        client.close()
        while replays._sending:
            assert time.monotonic() < end
            meanwhile()
    assert sum(taken) < 30_000


def test_it_breaks_off_with_a_word(long: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the database goes in the middle, the last line says so and where to go on."""
    read = Reading.next

    def failing(self: Reading) -> Any:
        if self.position >= 2000:
            monkeypatch.undo()
            run(long, "SELECT 1/0")
        return read(self)

    with long.client() as client:
        whole = client.get("/v1/audit/events").text.splitlines()[:-1]
        monkeypatch.setattr(Reading, "next", failing)
        lines, last = replay(client)
        assert last["problem"]["status"] in (422, 500, 503)
        assert len(lines) == last["next_after"] == 2000
        rest = client.get("/v1/audit/events", params={"after": 2000}).text.splitlines()[:-1]
        assert whole[2000:] == rest


def test_too_many_at_once_are_asked_to_come_again(product: Product, auditor: Client) -> None:
    replays = product.app.state.services.replays
    replays.count(+16)
    try:
        response = auditor.get("/v1/audit/events")
        assert (response.status_code, kind(response)) == (503, "unavailable")
        assert response.headers["retry-after"] == "1"
    finally:
        replays.count(-16)


def test_texts_are_opened_only_for_those_who_may(product: Product) -> None:
    replays = product.app.state.services.replays
    for scopes, opened in (({Scope.AUDIT}, False), ({Scope.AUDIT, Scope.PERSONAL}, True)):
        principal = product.tokens.verify(product.tokens.issue("x", frozenset(scopes)))
        assert isinstance(replays.texts(principal), Opened) is opened
