"""Tests of `structlog_audit.reports.formatting`: numbers, times and texts as a report shows them."""

import pytest

from structlog_audit.reports import formatting

START = "2025-01-05T00:00:00+00:00"
NOON = "2025-12-05T09:00:00+00:00"


@pytest.mark.parametrize(
    ("unit", "start", "step", "tick"),
    [
        ("hour", NOON, "5 December 2025, 09:00", "09:00"),
        ("hour", START, "5 January 2025, 00:00", "5 Jan"),
        ("day", START, "5 January 2025", "5 Jan"),
        ("week", START, "week of 5 January 2025", "5 Jan"),
        ("month", NOON, "December 2025", "Dec 2025"),
        ("year", START, "2025", "2025"),
        ("decade", "2020-01-01T00:00:00+00:00", "decade from 2020", "2020"),
        ("century", "2000-01-01T00:00:00+00:00", "century from 2000", "2000"),
    ],
)
def test_step_of_a_time_axis_has_a_label_and_a_short_one(unit, start, step, tick):
    """Every unit of an axis names its steps in words, and in short; midnight is named by its day."""
    assert formatting.step_label(unit, start) == step
    assert formatting.tick_label(unit, start) == tick


@pytest.mark.parametrize(
    ("milliseconds", "label"),
    [(10_000, "10 s"), (1_000, "1 s"), (999, "1 s"), (998, "998 ms"), (100, "100 ms"), (1, "1 ms"), (0.01, "10 µs"),
     (0.001, "1 µs"), (0.0001, "100 ns")],
)  # fmt: skip
def test_round_duration_has_the_largest_unit_that_fits(milliseconds, label):
    """A duration on an axis is a whole number of its unit, also if it is not exactly round."""
    assert formatting.duration_label(milliseconds) == label


def test_time_is_shown_to_the_second_and_month_in_words():
    """Times lose their fraction and offset; months have their names."""
    assert formatting.timestamp("2025-01-15T10:30:45.123456Z") == "2025-01-15 10:30:45"
    assert [formatting.month_name(month) for month in ("2025-01", "2025-12")] == ["January 2025", "December 2025"]


def test_counts_have_separators_and_agree_with_their_nouns():
    """One has the singular, every other number the plural."""
    assert formatting.number(12_345) == "12,345"
    found = [formatting.count(value, "event") for value in (0, 1, 2, 12_345)]
    assert found == ["0 events", "1 event", "2 events", "12,345 events"]
    assert [formatting.count(value, "entry", "entries") for value in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_enumeration_is_that_of_a_sentence(parts, text):
    """The last part follows the word and."""
    assert formatting.enumeration(parts) == text


def test_entries_beyond_those_of_the_row_are_counted():
    """The ids are separated by commas, and the omitted ones have their number."""
    assert formatting.entry_list({"entry_ids": ["e1", "e2"], "entries": 2}) == "e1, e2"
    assert formatting.entry_list({"entry_ids": ["e1"], "entries": 1_235}) == "e1 and 1,234 more"
    (shown,) = [formatting.entry_list({"entry_ids": ["x" * 100], "entries": 1})]
    assert len(shown) == formatting.LONGEST_ENTRY_ID == 48


@pytest.mark.parametrize(("length", "is_whole"), [(80, True), (81, False)])
def test_name_is_whole_up_to_the_limit(length, is_whole):
    """A name of 80 characters is whole; a longer one has an ellipsis in the middle, and 80 characters."""
    name = "ab" * 40 + "c" * (length - 80)
    shown = formatting.display_name(name)
    assert (shown == name) is is_whole
    assert len(shown) == 80
    assert is_whole or (shown[:40], shown[40], shown[-1]) == (name[:40], "…", "c")


@pytest.mark.parametrize(("text", "shown"), [("abc", "abc"), ("abcd", "ab…"), ("", "")])
def test_long_text_ends_in_an_ellipsis(text, shown):
    """A text of at most the limit stays; a longer one ends in an ellipsis within it."""
    assert formatting.shorten(text, 3) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.9996, "1.000"), (9.996, "10.00"), (99.96, "100.0"), (0.0005, "0.001")])
def test_milliseconds_at_the_edge_of_a_precision(value, shown):
    """The number of decimals is that of the value before it is rounded."""
    assert formatting.milliseconds(value) == shown


def test_combining_marks_beyond_four_are_omitted_and_counted():
    """Up to four marks stay on each character."""
    assert formatting.visible("a" + "\u0301" * 4) == "a" + "\u0301" * 4
    assert formatting.visible("a" + "\u0301" * 5 + "b") == "a" + "\u0301" * 4 + "b [1 combining mark omitted]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (59.9, "59.9 seconds"), (60, "1 minute"), (5_400, "1.5 hours"), (86_400, "1 day"),
     (31 * 86_400, "31 days"), (3_000 * 86_400, "3,000 days")],
)  # fmt: skip
def test_length_of_a_period_has_the_largest_unit_that_fits(seconds, text):
    """A length has one decimal at most, and none if it is whole."""
    assert formatting.length(seconds) == text
