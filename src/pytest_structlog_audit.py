"""The pytest plugin of structlog-audit: the fixture ``audit_trail``, for tests that request it.

**Performance.** The plugin lies outside of the package, so that loading it does not import the package. A test run that does
not use it pays for one small module, and coverage measures the package from its first line on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from structlog_audit.testing import AuditTrail


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting ``audit_logger``."""
    parser.addini("audit_logger", "Name of the logger that audit events go through.", default="audit")


@pytest.fixture
def audit_trail(request: pytest.FixtureRequest) -> Iterator[AuditTrail]:
    """Capture the audit events that are recorded during the test.

    No trail of the application receives them.

    ``audit_trail.assert_recorded(operation="STORE", user_id="u1")`` returns the event;
    ``audit_trail.assert_nothing_recorded(operation="FORGET")``. Queries such as ``audit_trail.query_events(…)`` work as on a
    handler.
    """
    from structlog_audit.testing import capture_events

    with capture_events(request.config.getini("audit_logger")) as trail:
        yield trail
