"""`structlog_audit.exceptions`: one base class, and the built-in classes that callers already catch."""

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
def test_errors_derive_from_audit_error_and_the_built_in_class(error, bases):
    """Every error is an `AuditError` and an instance of the built-in class for the same mistake."""
    assert issubclass(error, bases[0])
    assert all(issubclass(error, base) for base in bases)
    assert not issubclass(AuditWriteError, (TypeError, ValueError))
