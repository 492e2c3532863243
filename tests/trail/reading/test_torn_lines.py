"""Recognition of torn lines by their structure."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_files import line_of

from structlog_audit.trail.reading.torn_lines import code_of_unfinished_end, is_torn

NESTED = json.dumps({"message": 'a \\ " {[', "members": [{"a": [1, "}"]}, None], "z": {"é": 1}}).encode()


@pytest.mark.parametrize("size", range(1, len(line_of(1)) - 1))
def test_any_beginning_of_a_recorded_line_with_its_first_key_is_torn(size):
    """A line that starts as a recorded one is torn wherever it ends; a shorter one is torn if it is an unclosed object."""
    assert is_torn(line_of(1)[:size])


@given(st.integers(1, len(NESTED) - 1))
def test_any_beginning_of_an_object_is_torn(size):
    """An object that is cut off anywhere is torn, also in a string, after an inner brace, and with brackets in strings."""
    assert is_torn(NESTED[:size])


@pytest.mark.parametrize("tail", [b"", b'"', b",", b"}", line_of(2)])
def test_recorded_line_that_continues_as_another_is_torn(tail):
    """A line that starts as a recorded one is torn, whatever another writer appended to it."""
    assert is_torn(line_of(1)[:60] + tail)


@pytest.mark.parametrize(
    "line", [b"not json", b"", b"[1", b'"text', b"{nonsense", b"{'a': 1", b'{"a": nonsense}', b'{"a"}}', b"\x00"]
)
def test_other_invalid_line_is_not_torn(line):
    """A line that neither starts as a recorded one nor is an unclosed object is not torn."""
    assert not is_torn(line)


@pytest.mark.parametrize(("is_open", "code"), [(True, "unfinished"), (False, "torn")])
def test_unfinished_end_is_torn_once_writers_cannot_append(is_open, code):
    """Bytes after the last whole event are unfinished while a writer may append, and torn afterwards."""
    assert code_of_unfinished_end(is_open=is_open) == code
