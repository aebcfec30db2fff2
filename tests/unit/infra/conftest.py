from __future__ import annotations

import pytest

from tests.unit.infra.certificates import Authority
from tests.unit.infra.certificates import authority as made


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return made(tmp_path_factory.mktemp("certificates"))
