"""Checkpoints and proofs over HTTP, verified by the client itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.tokens import Scope
from infra.postgres import Pool, connect
from infra.proof.leaves import SELECT_COLUMNS, Row, leaf
from infra.proof.notes import VerifyingKey, parse
from infra.proof.sealing import Sealer
from infra.proof.tree import leaf_hash, verify_consistency, verify_inclusion
from tests.e2e.api.making import customer
from tests.e2e.api.running import Client, Product

CHECKPOINT = "/v1/audit/checkpoint"
INCLUSION = "/v1/audit/proof/inclusion"
CONSISTENCY = "/v1/audit/proof/consistency"
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def auditor(product: Product) -> Iterator[Client]:
    with product.client(Scope.AUDIT) as client:
        yield client


def seal(product: Product, folder: Path) -> str:
    with Pool(product.database_url, size=1, role="crm_sealer", search_path=["log"]) as pool:
        return Sealer(pool, folder / "seal.key").seal().note


@pytest.fixture(scope="module")
def sealed(product: Product, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two checkpoints, with customers before and between them."""
    folder = tmp_path_factory.mktemp("seal")
    notes = []
    with product.client() as admin:
        for _ in range(2):
            for _ in range(9):
                customer(admin)
            notes.append(seal(product, folder))
    return notes


def hashes(values: list[str]) -> list[bytes]:
    return [base64.b64decode(value) for value in values]


def leaf_at(product: Product, position: int) -> bytes:
    connection = connect(product.database_url, search_path=["log"])
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {SELECT_COLUMNS} FROM events WHERE position = %s", [position])
        row = cursor.fetchone()
    connection.close()
    assert row is not None
    return leaf(Row(*row[:-1], bytes(row[-1])))


def kind(response: Any) -> str:
    return str(response.json()["type"]).removeprefix("urn:crm-ledger:problem:")


def test_the_checkpoint_is_the_note_as_it_was_signed(auditor: Client, sealed: list[str]) -> None:
    response = auditor.get(CHECKPOINT)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == sealed[1]
    older = parse(sealed[0]).checkpoint.size
    assert auditor.get(CHECKPOINT, params={"size": older}).text == sealed[0]
    told = auditor.get(CHECKPOINT, headers=JSON).json()
    note = parse(told["note"])
    (key,) = map(VerifyingKey.parse, told["keys"])
    assert note.signed_by([key]) == [key]
    assert (told["origin"], told["size"]) == (note.checkpoint.origin, note.checkpoint.size)
    assert hashes([told["root"]]) == [note.checkpoint.root]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("application/json;q=x", "text/plain"),
        ("text/html, application/json;q=0.9", "application/json"),
    ],
)
def test_what_is_accepted_is_sent(
    auditor: Client, sealed: list[str], accept: str, kind: str
) -> None:
    response = auditor.get(CHECKPOINT, headers={"Accept": accept})
    assert response.headers["content-type"].split(";")[0] == kind


def test_every_event_is_proven_to_be_in_the_log(
    product: Product, auditor: Client, sealed: list[str]
) -> None:
    newest = parse(sealed[1]).checkpoint
    for position in (1, 2, newest.size - 1, newest.size):
        proof = auditor.get(f"{INCLUSION}/{position}").json()
        assert proof["checkpoint"] == sealed[1]
        hash_of_leaf = leaf_hash(leaf_at(product, position))
        assert hashes([proof["leaf_hash"]]) == [hash_of_leaf]
        path = hashes(proof["path"])
        verify_inclusion(hash_of_leaf, proof["index"], newest.size, path, newest.root)
    smaller = auditor.get(f"{INCLUSION}/2", params={"size": 5}).json()
    assert smaller["checkpoint"] is None
    (root,) = hashes([smaller["root"]])
    verify_inclusion(leaf_hash(leaf_at(product, 2)), 1, 5, hashes(smaller["path"]), root)


def test_the_later_checkpoint_is_proven_to_extend_the_earlier(
    auditor: Client, sealed: list[str]
) -> None:
    first, second = (parse(note).checkpoint for note in sealed)
    proof = auditor.get(CONSISTENCY, params={"from": first.size}).json()
    assert (proof["from"], proof["to"]) == (first.size, second.size)
    path = hashes(proof["path"])
    verify_consistency(first.size, second.size, first.root, second.root, path)
    same = auditor.get(CONSISTENCY, params={"from": 3, "to": 3}).json()
    assert same["path"] == []


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        (f"{CHECKPOINT}?size=1", 404, "no-such-checkpoint"),
        (f"{CHECKPOINT}?size=0", 422, "invalid-request"),
        (f"{CHECKPOINT}?size=x", 422, "invalid-request"),
        (f"{CHECKPOINT}?size=99999999999999999999", 422, "invalid-request"),
        (f"{INCLUSION}/100000", 404, "not-sealed"),
        (f"{INCLUSION}/{2**63 - 1}", 404, "not-sealed"),
        (f"{INCLUSION}/0", 422, "invalid-request"),
        (f"{INCLUSION}/-1", 422, "invalid-request"),
        (f"{INCLUSION}/5?size=4", 404, "not-sealed"),
        (f"{INCLUSION}/1?size=100000", 404, "not-sealed"),
        (f"{CONSISTENCY}?from=5&to=4", 422, "range-reversed"),
        (f"{CONSISTENCY}?from=0&to=4", 422, "invalid-request"),
        (f"{CONSISTENCY}?from=1&to=100000", 404, "not-sealed"),
        (f"{CONSISTENCY}?from=100000", 404, "not-sealed"),
        (CONSISTENCY, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_proven_is_told(
    auditor: Client, sealed: list[str], path: str, status: int, problem: str
) -> None:
    response = auditor.get(path)
    assert (response.status_code, kind(response)) == (status, problem)


@pytest.mark.parametrize("path", [CHECKPOINT, f"{INCLUSION}/1", f"{CONSISTENCY}?from=1"])
def test_proofs_are_for_auditors(product: Product, sealed: list[str], path: str) -> None:
    with product.client(Scope.READ) as reader:
        response = reader.get(path)
        assert (response.status_code, kind(response)) == (403, "forbidden")


def test_before_anything_is_sealed(start_product: Callable[..., Product]) -> None:
    with start_product().client(Scope.AUDIT) as auditor:
        for path in (CHECKPOINT, f"{INCLUSION}/1", f"{CONSISTENCY}?from=1&to=2"):
            response = auditor.get(path)
            assert (response.status_code, kind(response)) == (404, "not-sealed")


def test_a_damaged_tree_proves_nothing(
    start_product: Callable[..., Product], tmp_path: Path
) -> None:
    product = start_product()
    with product.client() as admin:
        customer(admin)
    seal(product, tmp_path)
    connection = connect(product.database_url, search_path=["log"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM tile")
    connection.close()
    with product.client(Scope.AUDIT) as auditor:
        response = auditor.get(f"{INCLUSION}/1")
        assert (response.status_code, kind(response)) == (503, "proof-unavailable")
