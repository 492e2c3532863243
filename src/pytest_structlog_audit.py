"""The pytest plugin of structlog-audit: the fixture ``audit_trail``, for tests that ask for it by name.

It lies outside of the package, so that loading it does not import the package: a test run that uses none of it pays for one
small module, and coverage is measured from the first line on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from structlog_audit.testing import AuditTrail


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have the setting ``audit_logger``."""
    parser.addini("audit_logger", "Name of the logger that audit events go through.", default="audit")


@pytest.fixture
def audit_trail(request: pytest.FixtureRequest) -> Iterator[AuditTrail]:
    """The audit events that are recorded during the test. No trail of the application gets them.

    ``audit_trail.assert_recorded(operation="STORE", user_id="u1")`` returns the event;
    ``audit_trail.assert_nothing_recorded(operation="FORGET")``; ``audit_trail.query_events(…)`` and all other questions.
    """
    from structlog_audit.testing import capture_events

    with capture_events(request.config.getini("audit_logger")) as trail:
        yield trail
