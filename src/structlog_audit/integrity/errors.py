"""Errors of the stand-alone verifier as errors of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from structlog_audit.exceptions import AuditError
from structlog_audit.integrity.standalone.verify_trail import SealError


@contextmanager
def raising(error_class: type[AuditError]) -> Iterator[None]:
    """Raise an *error_class* in place of a `SealError` in the ``with`` block."""
    try:
        yield
    except SealError as error:
        raise error_class(str(error)) from error
