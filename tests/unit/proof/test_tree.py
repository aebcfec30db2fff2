"""The tree by the published vectors of Certificate Transparency, and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.proof.tree import (
    EMPTY_ROOT,
    HASH,
    WIDTH,
    Growth,
    InvalidProof,
    TilesIncomplete,
    Tree,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"

INCLUSION = [  # index from 0, size, path
    (0, 1, []),
    (0, 8, [_A, _B, _C]),
    (5, 8, [_D, _E, ROOTS[4]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [ROOTS[1], _B, _D]),
]
CONSISTENCY = [  # first, second, path
    (1, 1, []),
    (1, 8, [_A, _B, _C]),
    (6, 8, [_F, _E, ROOTS[4]]),
    (2, 5, [_B, _D]),
]


class Tiles(dict[tuple[int, int], bytes]):
    """Tiles in memory, grown from leaf hashes."""

    def __init__(self, hashes: list[bytes], step: int = WIDTH) -> None:
        super().__init__()
        self.growth = Growth()
        while hashes:
            count = min(step, self.growth.room)
            for level, index, tile in self.growth.add(b"".join(hashes[:count])):
                self[level, index] = tile
            hashes = hashes[count:]

    def read(self, level: int, index: int) -> bytes:
        return self.get((level, index), b"")

    @property
    def tree(self) -> Tree:
        return Tree(self.read)


def of_definition(hashes: list[bytes]) -> bytes:
    """The root as RFC 9162, 2.1.1, defines it."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return node_hash(of_definition(hashes[:half]), of_definition(hashes[half:]))


def numbered(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


MANY = numbered(66_000)
LARGE = Tiles(MANY)


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
    tiles = Tiles(hashes, step=3)
    assert root_of(b"".join(hashes)).hex() == ROOTS[size]
    assert tiles.tree.root(size).hex() == ROOTS[size]
    assert tiles.growth.root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_published_inclusion(index: int, size: int, path: list[str]) -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    proof = Tiles(hashes).tree.inclusion(index, size)
    assert [node.hex() for node in proof] == path
    verify_inclusion(hashes[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second", "path"), CONSISTENCY)
def test_published_consistency(first: int, second: int, path: list[str]) -> None:
    proof = Tiles([leaf_hash(leaf) for leaf in LEAVES]).tree.consistency(first, second)
    assert [node.hex() for node in proof] == path
    roots = bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second])
    verify_consistency(first, second, *roots, proof)


sizes = st.integers(1, 600) | st.integers(65_200, len(MANY)) | st.integers(1, len(MANY))


@settings(max_examples=25)
@given(size=sizes)
def test_every_size_has_the_root_of_the_definition(size: int) -> None:
    assert LARGE.tree.root(size) == of_definition(MANY[:size])


@given(size=st.integers(0, 1500), step=st.integers(1, WIDTH))
def test_a_tree_grows_the_same_by_any_steps(size: int, step: int) -> None:
    tiles = Tiles(MANY[:size], step)
    assert tiles == Tiles(MANY[:size])
    assert tiles.growth.root() == tiles.tree.root(size)


@given(first=st.integers(0, 1500), more=st.integers(0, 700))
def test_a_tree_goes_on_from_its_tiles(first: int, more: int) -> None:
    tiles = Tiles(MANY[: first + more])
    growth = Growth(first, tiles.read)
    assert growth.root() == tiles.tree.root(first)
    rest = MANY[first : first + more]
    while rest:
        count = min(len(rest), growth.room)
        growth.add(b"".join(rest[:count]))
        rest = rest[count:]
    assert growth.root() == tiles.tree.root(first + more)


@given(data=st.data(), size=sizes)
def test_inclusion_is_proven_and_nothing_else(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = LARGE.tree.inclusion(index, size)
    root = LARGE.tree.root(size)
    verify_inclusion(MANY[index], index, size, path, root)
    wrong = [
        (leaf_hash(b"another"), index, size, path, root),
        (MANY[index], index + 1, size, path, root),
        (MANY[index], index - 1, size, path, root),
        (MANY[index], index, size, [*path, root], root),
        (MANY[index], index, size, path, leaf_hash(b"another")),
    ]
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        bit = data.draw(st.integers(0, 255))
        wrong += [
            (MANY[index], index, size, [*path[:at], flipped(path[at], bit), *path[at + 1 :]], root),
            (MANY[index], index, size, path[:at] + path[at + 1 :], root),
        ]
    for proof in wrong:
        with pytest.raises(InvalidProof):
            verify_inclusion(*proof)


@given(data=st.data(), second=sizes)
def test_consistency_is_proven_and_nothing_else(data: st.DataObject, second: int) -> None:
    first = data.draw(st.integers(1, second))
    path = LARGE.tree.consistency(first, second)
    roots = LARGE.tree.root(first), LARGE.tree.root(second)
    verify_consistency(first, second, *roots, path)
    wrong = [
        (first, second, leaf_hash(b"x"), roots[1], path),
        (first, second, roots[0], leaf_hash(b"x"), path),
        (first, second, *roots, [*path, roots[0]]),
        (second + 1, second, *roots, path),
    ]
    if first != second:
        wrong.append((second, first, *reversed(roots), path))
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        bit = data.draw(st.integers(0, 255))
        wrong += [
            (first, second, *roots, [*path[:at], flipped(path[at], bit), *path[at + 1 :]]),
            (first, second, *roots, path[:at] + path[at + 1 :]),
        ]
    for proof in wrong:
        with pytest.raises(InvalidProof):
            verify_consistency(*proof)


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value) ^ (1 << bit)).to_bytes(HASH)


def test_the_empty_tree_is_the_beginning_of_every_tree() -> None:
    verify_consistency(0, 8, EMPTY_ROOT, bytes.fromhex(ROOTS[8]), [])
    with pytest.raises(InvalidProof):
        verify_consistency(0, 8, bytes.fromhex(ROOTS[1]), bytes.fromhex(ROOTS[8]), [])


def test_missing_tiles_are_named() -> None:
    tiles = Tiles(MANY[:600])
    del tiles[0, 1]
    with pytest.raises(TilesIncomplete) as missing:
        tiles.tree.leaf(300)
    assert (missing.value.level, missing.value.index) == (0, 1)
    with pytest.raises(TilesIncomplete):
        tiles.tree.root(601)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_a_proof_is_of_a_leaf_in_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        LARGE.tree.inclusion(index, size)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 5), (-1, 3)])
def test_consistency_leads_forward(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="smaller tree"):
        LARGE.tree.consistency(first, second)
