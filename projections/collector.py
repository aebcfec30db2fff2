"""Keeping Python's cycle collector out of the way while many small objects are made at once.

A batch makes a hundred thousand rows without a cycle; to have the collector look through them
again and again took half of the time of folding a log (measured).
"""

from __future__ import annotations

import gc
import threading

_BATCHES = 10


class CollectorPause:
    """One user's share in keeping the collector of this process off.

    It runs again when no user holds it off, and each user lets go after ten batches in a row, so
    what little garbage in cycles there is waits for a few seconds at most.
    """

    def __init__(self) -> None:
        self._batches = 0

    def hold(self) -> None:
        """No collections from now on."""
        if self._batches == 0:
            _users.enter()
        self._batches += 1

    def done(self, *, more: bool) -> None:
        """A batch is done; if `more` follow at once, the collector may stay off."""
        if not more or self._batches >= _BATCHES:
            self.release()

    def release(self) -> None:
        """Let the collector run as far as this user is concerned."""
        if self._batches:
            self._batches = 0
            _users.leave()


class _Users:
    """Those who hold the collector off, in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._was_enabled = False

    def enter(self) -> None:
        with self._lock:
            if self._count == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._was_enabled:
                gc.enable()


_users = _Users()
