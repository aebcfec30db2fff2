"""How much memory the embedded server may count on."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cluster import memory


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_limit_counts(tmp_path: Path, file: str) -> None:
    machine = memory(tmp_path)
    assert machine > 2**28
    limit = tmp_path / file
    limit.parent.mkdir(exist_ok=True)
    for text, expected in (
        ("max\n", machine),
        (f"{2**28}\n", 2**28),
        (f"{2**63 - 4096}\n", machine),
    ):
        limit.write_text(text)
        assert memory(tmp_path) == expected
