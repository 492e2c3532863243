"""Errors of the stand-alone verifier as errors of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from structlog_audit.exceptions import AuditError
from structlog_audit.integrity.standalone.verify_trail import SealError, VanishedError


@contextmanager
def raising(error_class: type[AuditError]) -> Iterator[None]:
    """Raise an *error_class* in place of a `SealError` or a `VanishedError` in the ``with`` block."""
    try:
        yield
    except SealError as error:
        raise error_class(str(error)) from error
    except VanishedError as error:
        # Retention, or a compression that was under way: the next listing shows what is there now.
        raise error_class(f"{error} was deleted or renamed while it was read: try again") from error
