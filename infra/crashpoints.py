"""Named places at which a process can be made to die or stand still, so that what follows can be
tested."""

from __future__ import annotations

import os
import signal
import threading

_lock = threading.Lock()
_armed: dict[str, int] = {}
_stops: set[str] = set()


def arm(point: str) -> None:
    """``name:n``: the process kills itself when it reaches ``name`` for the n-th time (1 if
    not given); with ``stop@`` before the name it stops itself, until it is told to go on by
    SIGCONT. Raises ``ValueError``."""
    name, _, count = point.partition(":")
    stops = name.startswith("stop@")
    name = name.removeprefix("stop@")
    number = int(count or "1")
    if not name or number < 1:
        raise ValueError("a crash point is a name and a count from 1 on, as relay.after_ack:3")
    _armed[name] = number
    if stops:
        _stops.add(name)


def reach(name: str) -> None:
    """Die here by SIGKILL, or stop by SIGSTOP, if that was asked for; otherwise cost next to
    nothing."""
    if not _armed:
        return
    with _lock:
        left = _armed.get(name)
        if left is None:
            return
        _armed[name] = left - 1
        if left == 1:
            os.kill(os.getpid(), signal.SIGSTOP if name in _stops else signal.SIGKILL)
