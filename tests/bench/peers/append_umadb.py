"""Appends one-event commands to a UmaDB server of its own, each with a tag that must be new.

Environment: `FOLDER` for its data, `WRITERS`, `SECONDS`. Prints {"rate": commands/s}.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import umadb

BODY = json.dumps({"name": "x" * 200, "amount": {"value": "1000.00", "currency": "EUR"}}).encode()


def main() -> None:
    """One measurement."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "umadb"),
            "--listen",
            f"127.0.0.1:{port}",
            "--db-path",
            str(Path(os.environ["FOLDER"]) / "uma.db"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        rate = _measured(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


def _measured(url: str) -> float:
    clients = [_client(url) for _ in range(int(os.environ["WRITERS"]))]
    counts: list[int] = []
    started = time.perf_counter()
    end = started + float(os.environ["SECONDS"])

    def write(client: umadb.Client) -> None:
        done = 0
        while time.perf_counter() < end:
            tag = f"deal:{uuid4()}"
            event = umadb.Event("Opened", BODY, [tag], uuid4())
            new = umadb.AppendCondition(umadb.Query([umadb.QueryItem(tags=[tag])]))
            client.append([event], new)
            done += 1
        counts.append(done)

    threads = [threading.Thread(target=write, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def _client(url: str) -> umadb.Client:
    for _ in range(100):
        try:
            client = umadb.Client(url)
            client.head()
        except umadb.TransportError:
            time.sleep(0.1)
        else:
            return client
    raise TimeoutError("the server did not come up")


if __name__ == "__main__":
    main()
