"""Runs a broker for as long as anybody uses it: ``keeper.py HOME COMMAND…``

Prints the broker's process id and goes to the background. Whoever uses the broker holds a shared
lock on ``HOME/users.lock``; the keeper waits for the exclusive one. The system gives up the locks
of a process that dies, however it dies, so that no broker is left behind. Should the keeper itself
be killed, the system ends the broker.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_PATIENCE = 30.0
"""Seconds that the broker has for an orderly end."""


def main(home: str, command: list[str]) -> None:
    os.chdir(home)
    if os.fork():
        os._exit(0)
    os.setsid()
    with open("broker.log", "ab") as log:
        broker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_me
        )

    def child(*_: object) -> None:
        """It has ended, and there is nothing to keep; or it was only stopped, or goes on."""
        code = broker.poll()
        if code is not None:
            with open("broker.log", "a", encoding="utf-8") as log:
                log.write(f"the broker, process {broker.pid}, ended with {code}\n")
            os._exit(0)

    signal.signal(signal.SIGCHLD, child)
    child()  # should it have ended before
    with open("pid.new", "w", encoding="ascii") as file:
        file.write(str(broker.pid))
    os.replace("pid.new", "pid")
    sys.stdout.write(f"{broker.pid}\n")
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # whoever started us waits for the end of our output
        os.dup2(nowhere, number)

    fcntl.flock(os.open("users.lock", os.O_RDWR), fcntl.LOCK_EX)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    broker.terminate()
    broker.send_signal(signal.SIGCONT)  # it may be stopped
    try:
        broker.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        broker.kill()
        broker.wait()


def _end_with_me() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
