"""A clock that tests can put forward."""

from datetime import UTC, datetime, timedelta


class SettableClock:
    """The real time, plus what it was put forward by."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead
