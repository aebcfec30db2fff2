"""HEAD, which no path has: refused in the same words for pictures as for answers."""

from __future__ import annotations

import pytest

from tests.e2e.api.running import Client


@pytest.mark.parametrize(
    "path", ["/v1/funnel", "/v1/funnel.png", "/v1/lifecycle.svg", "/v1/segments/members"]
)
@pytest.mark.parametrize("accept", ["*/*", "image/png"])
def test_head_is_refused_and_says_what_is_allowed(admin: Client, path: str, accept: str) -> None:
    refused = admin.head(path, headers={"Accept": accept})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert refused.content == b""
