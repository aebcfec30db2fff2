"""Many commands in one request: each by itself, answered in order."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from api.tokens import Scope
from infra.postgres import connect
from tests.e2e.api.making import amount, customer, deal
from tests.e2e.api.running import MAX_BODY, Client, Product

NDJSON = {"Content-Type": "application/x-ndjson"}


def line(path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
    return {"path": path, "key": key or uuid.uuid4().hex, "body": body}


def lines(*commands: Any) -> bytes:
    return b"".join(
        command if isinstance(command, bytes) else orjson.dumps(command) + b"\n"
        for command in commands
    )


def sent(client: Client, content: bytes | Iterator[bytes]) -> list[dict[str, Any]]:
    response = client.post("/v1/bulk", content=content, headers=NDJSON)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    answers = [orjson.loads(answer) for answer in response.content.splitlines()]
    positions = [answer["position"] for answer in answers if "position" in answer]
    client.position = max([client.position, *positions])
    return answers


def test_lines_are_answered_in_order_each_by_itself(admin: Client) -> None:
    known = deal(admin)
    answers = sent(
        admin,
        lines(
            line("/v1/customers", {"name": "ACME"}),
            line(f"/v1/opportunities/{known}/stage", {"stage": "bid"}),
            line(f"/v1/opportunities/{known}/resume"),
            line("/v1/customers", {"nmae": "ACME"}),
            line(f"/v1/opportunities/{uuid.uuid4()}/suspend"),
            line("/v1/nothing", {}),
            line("/v1/customers/7/win-back"),
            b"{\n",
            b"[]\n",
            b'{"path": "/v1/customers"}\n',
            b'{"path": "/v1/customers", "key": "k", "body": {}, "extra": 1}\n',
            line("/v1/customers", {"name": "ACME"}, key="k" * 256),
            line("/v1/customers", {"name": "ACME"}, key="\u0000"),
            line("/v1/customers", [1]),
            b"\n",
            line(f"/v1/customers/{customer(admin)}/contacts", {"name": "Zhang San"}),
        ),
    )
    statuses = [(answer["line"], answer["status"]) for answer in answers]
    assert statuses == [
        (1, 201),
        (2, 200),
        (3, 409),
        (4, 422),
        (5, 404),
        (6, 404),
        (7, 422),
        (8, 400),
        (9, 422),
        (10, 422),
        (11, 422),
        (12, 400),
        (13, 400),
        (14, 422),
        (16, 201),
    ]
    assert answers[0].keys() == {"line", "status", "id", "version", "position"}
    assert answers[-1]["contact_id"]
    assert answers[2]["problem"]["type"].endswith(":deal-not-suspended")
    assert answers[2]["problem"]["status"] == 409


def test_a_json_array_is_taken_too(admin: Client) -> None:
    name = uuid.uuid4().hex
    commands = [line("/v1/customers", {"name": f"{name} {n}"}) for n in range(3)]
    response = admin.post("/v1/bulk", json=commands)
    answers = [orjson.loads(answer) for answer in response.content.splitlines()]
    assert [(answer["line"], answer["status"]) for answer in answers] == [
        (1, 201),
        (2, 201),
        (3, 201),
    ]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"{}", "application/json", 422),
        (b"[", "application/json", 400),
        (b"[" + b" " * MAX_BODY + b"]", "application/json", 413),
        (b"[]", "text/plain", 415),
        (b"[]", "", 415),
    ],
)
def test_a_bulk_that_is_none(admin: Client, content: bytes, content_type: str, status: int) -> None:
    headers = {"Content-Type": content_type}
    assert admin.post("/v1/bulk", content=content, headers=headers).status_code == status


def test_lines_on_one_stream_keep_their_order(admin: Client) -> None:
    path = f"/v1/opportunities/{deal(admin)}"
    values = [f"{n}.00" for n in range(1, 200)]
    answers = sent(admin, lines(*(line(f"{path}/amount", {"amount": amount(v)}) for v in values)))
    assert [answer["version"] for answer in answers] == list(range(2, 201))
    assert admin.read(path)["amount"] == amount(values[-1])


def test_a_line_sees_what_an_earlier_one_made(admin: Client) -> None:
    source = uuid.uuid4().hex
    external = {"source": source, "id": "1"}
    first = sent(admin, lines(line("/v1/customers", {"name": "A", "external_id": external})))
    made = first[0]["id"]
    external = {"source": source, "id": "2"}
    opening = {"customer_id": made, "name": "d", "amount": amount(), "external_id": external}
    changes = [line(f"/v1/customers/{made}/profile", {"region": f"r{n}"}) for n in range(20)]
    opened = line("/v1/opportunities", opening)
    answers = sent(admin, lines(*changes, opened, line("/v1/opportunities", opening)))
    assert [answer["status"] for answer in answers] == [200] * 20 + [201, 409]
    assert admin.read(f"/v1/customers/{made}")["region"] == "r19"


def test_a_bulk_sent_again_does_nothing_again(admin: Client) -> None:
    name = uuid.uuid4().hex
    content = lines(*(line("/v1/customers", {"name": f"{name} {n}"}) for n in range(50)))
    assert sent(admin, content) == sent(admin, content)
    assert len(admin.read("/v1/customers", search=name, limit=100)["items"]) == 50


def test_a_line_and_a_request_are_the_same_command(admin: Client) -> None:
    key, body = uuid.uuid4().hex, {"name": "ACME", "region": "north"}
    answer = admin.command("/v1/customers", body, key=key).json()
    (again,) = sent(admin, lines(line("/v1/customers", dict(reversed(body.items())), key=key)))
    assert again == {"line": 1, "status": 201, **answer}


def test_each_line_needs_its_scope(product: Product, admin: Client) -> None:
    body = {
        "name": "fair",
        "channel": "web",
        "starts_on": "2026-01-01",
        "ends_on": "2026-01-31",
        "budget": amount(),
    }
    made = admin.done("/v1/campaigns", body)["id"]
    with product.client(Scope.COMMAND) as rep:
        answers = sent(
            rep,
            lines(line(f"/v1/campaigns/{made}/submit"), line(f"/v1/campaigns/{made}/approve")),
        )
    assert [answer["status"] for answer in answers] == [200, 403]


def test_a_line_over_the_limit_is_a_problem_of_its_own(admin: Client) -> None:
    answers = sent(
        admin,
        lines(
            line("/v1/customers", {"name": "x" * MAX_BODY}), line("/v1/customers", {"name": "y"})
        ),
    )
    assert [(answer["line"], answer["status"]) for answer in answers] == [(1, 413), (2, 201)]


def test_a_client_that_sends_everything_before_it_reads(admin: Client) -> None:
    count = 6_000

    def chunks() -> Iterator[bytes]:
        for _ in range(count // 100):
            yield lines(*(line("/v1/nothing", {"x": "y" * 50}) for _ in range(100)))

    answers = sent(admin, chunks())
    assert [answer["line"] for answer in answers] == list(range(1, count + 1))


@contextmanager
def begun(product: Product, admin: Client, length: str) -> Iterator[socket.socket]:
    """A connection on which a request has begun whose body is to follow; `length` is the header
    about it."""
    host, port = product.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = (
            f"POST /v1/bulk HTTP/1.1\r\nHost: x\r\n{length}\r\n"
            f"Authorization: {admin.headers['Authorization']}\r\n"
            "Content-Type: application/x-ndjson\r\n\r\n"
        )
        connection.sendall(head.encode())
        yield connection


def test_answers_come_while_the_request_is_still_being_sent(
    product: Product, admin: Client
) -> None:
    with begun(product, admin, "Transfer-Encoding: chunked") as connection:
        first = lines(line("/v1/customers", {"name": "early"}))
        connection.sendall(b"%x\r\n%s\r\n" % (len(first), first))
        received = b""
        while b'"line":1' not in received:
            part = connection.recv(65_536)
            assert part, received
            received += part
        connection.sendall(b"0\r\n\r\n")


def test_what_has_begun_is_finished_when_the_client_goes(product: Product, admin: Client) -> None:
    name = uuid.uuid4().hex
    content = lines(*(line("/v1/customers", {"name": f"{name} {n}"}) for n in range(20)))
    with no_commits(product) as somebody_waits:
        with begun(product, admin, "Content-Length: 999999") as connection:
            connection.sendall(content)
            until(somebody_waits)
        assert admin.read("/v1/customers", search=name)["items"] == []
    until(lambda: len(admin.read("/v1/customers", search=name)["items"]) == 20)


@contextmanager
def no_commits(product: Product) -> Iterator[Callable[[], bool]]:
    """No command is committed inside; gives a function that says whether one would be."""
    holder = connect(product.database_url)
    watcher = connect(product.database_url, autocommit=True)
    try:
        holder.cursor().execute("SELECT FROM log.head FOR UPDATE")

        def somebody_waits() -> bool:
            with watcher.cursor() as cursor:
                cursor.execute(
                    "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                    (holder.info.backend_pid,),
                )
                return cursor.rowcount > 0

        yield somebody_waits
    finally:
        holder.close()
        watcher.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
