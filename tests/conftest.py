"""What every test may ask for; the fixtures live in ``fix_*.py``. Where CI is set, nothing may be skipped."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["fix_postgres", "fix_engine"]

NOT_HERE = "not here: "
"""Begins the reason of a skip that is right on this machine, and so is no failure under CI either."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run that skipped what should have run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None:
        return
    wrong = [report for report in reporter.stats.get("skipped", ()) if NOT_HERE not in str(report.longrepr)]
    if wrong and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"CI: {len(wrong)} tests were skipped that should have run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
