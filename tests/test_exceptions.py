"""Tests of `structlog_audit.exceptions`: one base, and the classes that Python's own handlers expect."""

import pytest

from structlog_audit import (
    AuditDecodeError,
    AuditError,
    AuditReadError,
    AuditTypeError,
    AuditValueError,
    AuditWriteError,
)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (AuditWriteError, (AuditError,)),
        (AuditReadError, (AuditError,)),
        (AuditTypeError, (AuditError, TypeError)),
        (AuditValueError, (AuditError, ValueError)),
        (AuditDecodeError, (AuditError, AuditValueError, ValueError)),
    ],
)
def test_bases(error, bases):
    """Every error is an `AuditError`, and also what Python itself raises for such a mistake."""
    assert issubclass(error, bases[0])
    assert all(issubclass(error, base) for base in bases)
    assert not issubclass(AuditWriteError, (TypeError, ValueError))
