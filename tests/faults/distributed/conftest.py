import pytest

from tests.faults.distributed.trial import REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the scenarios came to, as a table."""
    if REPORT.outcomes:
        terminalreporter.section("faults")
        terminalreporter.write_line(REPORT.table())
