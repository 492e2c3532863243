"""The time range of every command that has one: all take the same forms, in the same zone, with the same errors."""

from __future__ import annotations

import datetime as dt
import json
from importlib.util import find_spec
from zoneinfo import ZoneInfo

import pytest
from commands import run
from trail_files import line_of

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.events.event import rfc3339
from structlog_audit.query.times import month_range, parse_time
from structlog_audit.trail.reading.opening import open_trail

TOKYO = ZoneInfo("Asia/Tokyo")

COMMANDS = {
    "query": ["query", "TRAIL"],
    "stats": ["stats", "TRAIL"],
    "users": ["users", "TRAIL"],
    "export": ["export", "TRAIL", "--to", "out.jsonl", "--force"],
    "report": ["report", "TRAIL"],
    "person": ["person", "ann", "TRAIL"],
    "diff": ["diff", "TRAIL", "--against", "other.jsonl"],
    "monitor": ["monitor", "--rules", "rules.json", "TRAIL"],
    "catalogue": ["catalogue", "code", "--trail", "TRAIL"],
}
"""A use of each command that ends, and whose reading can be recorded."""

needs_datasette = pytest.mark.skipif(
    find_spec("datasette") is None, reason="explore checks for datasette first, which is not installed"
)

NOT_RUN = ["tail", pytest.param("explore", marks=needs_datasette)]
"""Commands with the same options that show only the end of a trail, or serve."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a trail, rules and code."""
    monkeypatch.chdir(tmp_path)
    for name in ("audit.jsonl", "other.jsonl"):
        (tmp_path / name).write_bytes(line_of(900))
    rule = {"name": "any", "more_than": 0, "within": "1h"}
    (tmp_path / "rules.json").write_text(json.dumps({"rules": [rule]}))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("")
    return tmp_path


def words_of(command):
    return ["audit.jsonl" if word == "TRAIL" else word for word in COMMANDS[command]]


def recorded_range(command, *times):
    """Return the range that the reading was recorded with."""
    done = run(*words_of(command), *times, "--tz", "Asia/Tokyo", "--record")
    assert done.code in (Exit.DONE, Exit.NO), done.err
    *_, read = open_trail("audit.jsonl").query_events(kind="trail", operation="read", newest_first=False)
    return read.metadata.get("since"), read.metadata.get("until")


def now():
    return dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    "form", ["last week", "monday", "yesterday 9:00", "9:00", "2025-W03", "2025-01", "2025-01-15 09:00"]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_start_is_read_alike_by_every_command(folder, command, form):
    """Each form of a time means the same instant in every command, in the zone of --tz."""
    before = parse_time("since", form, now(), TOKYO)
    start, _ = recorded_range(command, "--since", form)
    assert start in (rfc3339(before), rfc3339(parse_time("since", form, now(), TOKYO)))


@pytest.mark.parametrize("month", ["2025-03", "this", "last"])
@pytest.mark.parametrize("command", COMMANDS)
def test_month_is_read_alike_by_every_command(folder, command, month):
    """A month begins and ends at midnight of the zone in every command."""
    expected = month_range(month, now(), TOKYO)
    found = recorded_range(command, "--month", month)
    assert found in [tuple(map(rfc3339, expected)), tuple(map(rfc3339, month_range(month, now(), TOKYO)))]


AGES = {
    "--older-than": ["archive", "prune", "archive", "--older-than"],
    "--delete-after": ["compact", "audit.jsonl", "--to", "archive", "--delete-after"],
}


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("last week", "expected a duration such as 30d or 12h"),
        ("400000d", "expected at most 365,000 days"),
        ("999999999999d", "expected at most 365,000 days"),
    ],
)
@pytest.mark.parametrize("option", AGES)
def test_mistake_in_an_age_is_one_line_that_names_the_option(folder, option, age, expected):
    """What is no age, or one before the calendar, is an error with the option as it was typed."""
    assert run("compact", "audit.jsonl", "--to", "archive").code == Exit.DONE
    done = run(*AGES[option], age)
    assert (done.code, done.out, done.error_line) == (Exit.USAGE, "", f"{option}={age!r}: {expected}")


MISTAKES = [
    (["--since", "yesteday"], "--since='yesteday': expected a time. Did you mean 'yesterday'?"),
    (["--until", "9 oclock"], "--until='9 oclock': expected a time. Use RFC 3339, "),
    (["--month", "2025-13"], "--month='2025-13': expected a month such as '2025-01', 'this' or 'last'"),
    (["--month", "last week"], "--month='last week': expected a month such as"),
    (["--month", "this", "--since", "1d"], "--month cannot be combined with --since or --until"),
    (["--since", "1h", "--until", "2h"], "--since='1h' must not be later than --until='2h'"),
    (["--since", "1d", "--tz", "Europe/Berln"], "--tz='Europe/Berln': expected the name of a time zone, "),
    (["--since", "1d", "--tz", "Asia/Tokyo", "--utc"], "--tz cannot be combined with --utc"),
]


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words[0]))
@pytest.mark.parametrize("command", [*COMMANDS, *NOT_RUN])
def test_mistake_in_a_time_has_the_same_error_in_every_command(folder, command, words):
    """What is no time, month or zone is one line that names the option, what it got and what it expects."""
    given, message = words
    named = words_of(command) if command in COMMANDS else [command, "audit.jsonl"]
    done = run(*named, *given)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.error_line.startswith(message)
