"""Tests of `structlog_audit.events.status_words`: what a value states about the outcome."""

import enum
import http
import sys

import pytest
import strategies as s
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.events import status_words
from structlog_audit.events.event import EventStatus
from structlog_audit.events.json_safe import type_name
from structlog_audit.events.status_words import (
    FAILURE_WORDS,
    PARTIAL_WORDS,
    SUCCESS_WORDS,
    is_status_name,
    stated_status,
)

FAILURE, PARTIAL, SUCCESS = EventStatus.FAILURE, EventStatus.PARTIAL, EventStatus.SUCCESS

TABLE = [(word, SUCCESS) for word in sorted(SUCCESS_WORDS)]
TABLE += [(word, FAILURE) for word in sorted(FAILURE_WORDS)]
TABLE += [(word, PARTIAL) for word in sorted(PARTIAL_WORDS)]


class StatusCode(enum.Enum):
    """The status codes of OpenTelemetry."""

    UNSET = 0
    OK = 1
    ERROR = 2


def test_no_word_states_two_statuses():
    """The three sets of words have no word in common."""
    assert len(SUCCESS_WORDS) + len(FAILURE_WORDS) + len(PARTIAL_WORDS) == len(status_words._STATUS_OF)


@pytest.mark.parametrize("write", [str, str.upper, str.title, lambda word: f" {word}\n"])
def test_word_counts_in_any_case(write):
    """Each word of the table states its status, in any case and with space around it."""
    assert [(word, stated_status(write(word))) for word, _ in TABLE] == TABLE


@pytest.mark.parametrize(
    "text", ["permission denied", "PERMISSION_DENIED", "Permission-Denied", "PermissionDenied", "permission.denied"]
)
def test_word_counts_with_any_separator(text):
    """The separators and capitals between the words of a text do not matter."""
    assert stated_status(text) is FAILURE


@pytest.mark.parametrize(
    "text", ["login_failed", "CREATE_FAILED", "PaymentDeclined", "user not found", "upload timed out", "is not ok"]
)
def test_text_that_ends_in_a_word_of_failure_is_a_failure(text):
    """A text of several words is a FAILURE if its last one or two words say failure."""
    assert stated_status(text) is FAILURE


@pytest.mark.parametrize("text", ["error: disk full", "Login failed: bad password", "Failed!", "denied."])
def test_reason_and_punctuation_do_not_matter(text):
    """A word of failure counts before a colon and its reason, and before a full stop or exclamation mark."""
    assert stated_status(text) is FAILURE


@pytest.mark.parametrize(
    ("text", "status"), [("2xx", SUCCESS), ("4xx", FAILURE), ("5XX", FAILURE), ("success: false", None)]
)
def test_class_of_http_codes_states_a_status(text, status):
    """A class of HTTP codes states a status; a word of success with a reason does not."""
    assert stated_status(text) is status


@pytest.mark.parametrize("text", ["not failed", "without errors", "0 errors", "never_rejected"])
def test_negated_word_of_failure_states_nothing(text):
    """A negation before a word of failure leaves the text without a status."""
    assert stated_status(text) is None


@pytest.mark.parametrize(
    "value", ["archived", "DONE", "pending", "unknown", "", " ", "!", 0, 1, -1, 99, 1_000, 404.5, 1j]
)
def test_other_value_states_nothing(value):
    """A resource's own state, a word that only says that something ended, and other numbers state no status."""
    assert stated_status(value) is None


@given(st.integers(100, 599))
def test_http_code_states_a_status(code):
    """For all HTTP codes, as numbers and as texts, those of at least 400 are failures and the others successes."""
    status = FAILURE if code >= 400 else SUCCESS
    forms = [code, float(code), str(code), f"{code} Some Phrase", f"HTTP/1.1 {code} Some Phrase", str(code).encode()]
    assert {stated_status(form) for form in forms} == {status}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (True, SUCCESS),
        (False, FAILURE),
        (599, FAILURE),
        (600, FAILURE),
        (999, FAILURE),
        (http.HTTPStatus.FORBIDDEN, FAILURE),
        (http.HTTPStatus.CREATED, SUCCESS),
        (StatusCode.ERROR, FAILURE),
        (StatusCode.OK, SUCCESS),
        (StatusCode.UNSET, None),
        (s.LowerStatus.FAILURE, FAILURE),
        (b"Denied", FAILURE),
        (ValueError("x"), FAILURE),
        (s.HostileStr("failed"), FAILURE),
    ],
    ids=type_name,
)
def test_value_of_other_type_states_a_status(value, status):
    """Truth values, members of enums, bytes and exceptions state a status."""
    assert stated_status(value) is status


def test_scalar_of_numpy_states_the_status_of_its_value():
    """A truth value or a number of numpy counts as the one of Python."""
    numpy = pytest.importorskip("numpy")
    values = [numpy.bool_(False), numpy.bool_(True), numpy.int64(403), numpy.float32(200), numpy.str_("failed")]
    assert [stated_status(value) for value in values] == [FAILURE, SUCCESS, FAILURE, SUCCESS, FAILURE]


def test_numpy_is_not_imported(monkeypatch):
    """Without numpy in the process, no value is taken for one of its scalars."""
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    assert stated_status(404) is FAILURE
    assert "numpy" not in sys.modules


@given(st.text())
def test_only_names_of_statuses_are_status_names(text):
    """For all texts, only the three names in any case are names of a status."""
    assert is_status_name(text) == (text.upper() in ("SUCCESS", "FAILURE", "PARTIAL"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200 OK", EventStatus.SUCCESS),
        ("HTTP/1.1 204 No Content", EventStatus.SUCCESS),
        ("200 records failed", EventStatus.FAILURE),
        ("HTTP/1.1 200 partial", EventStatus.PARTIAL),
        ("404 ok", EventStatus.FAILURE),
    ],
)
def test_phrase_after_a_code_counts_before_a_code_of_success(text, expected):
    """A code of 400 or more is a FAILURE; after a lower one, a phrase that states another status is that status."""
    assert stated_status(text) is expected


@pytest.mark.parametrize("text", ["errors: 0", "is_error: false", "failed: none", "error:"])
def test_word_of_failure_without_a_failure_states_nothing(text):
    """A text that counts no failure is neither a FAILURE nor a SUCCESS."""
    assert stated_status(text) is None
