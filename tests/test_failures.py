"""Descriptions of failures contain no event content."""

import errno

import pytest

from structlog_audit._failures import DeliveryError, describe_failure


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EIO, "Input/output error", "/secret/path"), "OSError: [Errno 5] Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (OSError("user bob"), "OSError"),
        (ValueError("user bob"), "ValueError"),
        (None, "NoneType"),
    ],
)
def test_description_contains_only_the_system_message_or_the_type(error, text):
    """A description gives the message of the system or the type of the error, never text of an event."""
    assert describe_failure(error) == text


def test_delivery_error_has_the_number_of_written_entries():
    """The message of a `DeliveryError` and its attribute give the number of entries that were written."""
    assert (str(DeliveryError(3)), DeliveryError(3).done) == ("the target failed after 3 entries", 3)
