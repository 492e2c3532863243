"""Files of a seal in folders that this user may not search."""

from __future__ import annotations

import errno
import os

import pytest

from structlog_audit.exceptions import AuditValueError
from structlog_audit.integrity.configuration import parse_integrity
from structlog_audit.integrity.standalone.verify_trail import Policy, SealError, is_there, notes_in


@pytest.fixture
def refused(monkeypatch):
    """A path that the system refuses to check."""
    path = "/refused/file"
    stat = os.stat

    def refuse(given, *args, **options):
        if given == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), given)
        return stat(given, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)
    return path


@pytest.mark.parametrize("read", [is_there, Policy.load, lambda path: list(notes_in(path, "example/origin"))])
def test_file_that_may_not_be_checked_is_not_taken_for_missing(refused, read):
    """A policy, checkpoints and a state that are refused are errors: the verification would be a weaker one."""
    with pytest.raises(SealError, match="cannot be read: Permission denied"):
        read(refused)


def test_key_that_may_not_be_checked_is_a_refused_permission(refused):
    """The advice is not to make another key."""
    with pytest.raises(AuditValueError, match="expected a readable file, got Permission denied"):
        parse_integrity({"origin": "example/origin", "key": refused})
