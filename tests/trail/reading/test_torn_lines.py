"""Recognition of torn lines by their structure."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_files import line_of

from structlog_audit.trail.reading.torn_lines import is_torn, may_be_unfinished

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


@pytest.mark.parametrize("line", [line_of(1)[:-1] + line_of(2)[:-1], b'{"a":1} {"b":"}{"}', b'{"a":{}}\t{}\r'])
def test_whole_objects_without_lf_between_them_are_not_torn(line):
    """Whole objects that no LF separates were not cut off, wherever they come from."""
    assert not is_torn(line)


@pytest.mark.parametrize("size", range(1, len(line_of(1)) - 1))
def test_any_beginning_of_a_recorded_line_may_be_unfinished(size):
    """A recorded line may be unfinished wherever it ends, unless it is whole."""
    assert may_be_unfinished(line_of(1)[:size])
    assert not may_be_unfinished(line_of(1)[:-1])


@pytest.mark.parametrize("line", [b'{"message":"a', b"text", b"[", b'{"a":1}', b"}"])
def test_line_of_another_program_is_not_unfinished(line):
    """A line that does not start as a recorded one is not being written by this library."""
    assert not may_be_unfinished(line)
