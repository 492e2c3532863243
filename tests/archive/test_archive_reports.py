"""Reports of an archive and its live trail are those of the files, although no query reads every event."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from archive_cases import DRAWN, cases, written
from archives import compacted, write_closed
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from strategies import examples
from trail_files import at, line_of, write_trail

from structlog_audit import open_trail
from structlog_audit.archive import field_sql, open_archive, sql_counts, user_totals
from structlog_audit.archive.database import Database
from structlog_audit.archive.reader import _View
from structlog_audit.archive.sql_counts import Places, moment_at
from structlog_audit.archive.sql_engine import Found
from structlog_audit.events.conversion import UNKNOWN_STATUS
from structlog_audit.query.activity import moment_of, time_in
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import microseconds
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.reports import compliance_report, person_report
from structlog_audit.reports.comparison import comparison_report

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
OWN = ("generated_at", "source", "completeness", "integrity")
"""The members of a report that describe its source."""

PERIODS = st.sampled_from(
    [
        {},
        {"month": "2025-01"},
        {"start_time": at(1)},
        {"end_time": at(60_000)},
        {"start_time": at(0), "end_time": at(90_000)},
        {"tz": "Asia/Kolkata"},
    ]
)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """All reports are made at the same time."""
    monkeypatch.setattr(EventSource, "_now", lambda self: NOW)


@pytest.fixture
def taken(monkeypatch):
    """The events that archives give one by one."""
    found = []
    select = _View.select

    def counted(self, *arguments, **options):
        for placed in select(self, *arguments, **options):
            found.append(placed)
            yield placed

    monkeypatch.setattr(_View, "select", counted)
    return found


def text_of(report):
    """Return a report as text, without what describes its source."""

    def without_source(value):
        if not isinstance(value, dict):
            return value
        return {name: without_source(member) for name, member in value.items() if name not in OWN}

    return json.dumps(without_source(report.to_dict()), indent=1)


def outcome(number, second, intent, **members):
    """Return the line of an event that completes the intent in the line *intent*."""
    intent_id = json.loads(intent)["event_id"]
    return line_of(number, second, metadata={"intent_id": intent_id, **members.pop("metadata", {})}, **members)


COUNT_BYTES = st.sampled_from([24, 2_000_000])
"""The memory for a count of a user: in the second case, few users have their counts in memory at once."""


@settings(max_examples=examples(8), phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(case=cases(), period=PERIODS, most=st.sampled_from([1, 2, 32]), count_bytes=COUNT_BYTES)
def test_report_of_an_archive_is_that_of_the_files(tmp_path_factory, case, period, most, count_bytes):
    """For all events and periods: the same text, in the same order, whatever fits into one query and into memory."""
    drawn, _, cuts, promoted = case
    folder = tmp_path_factory.mktemp("case")
    path = written(folder / "logs", drawn, cuts)
    compacted(path, folder / "archive", promote=promoted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_counts, "_MOST_OPERATIONS", most)
        patch.setattr(sql_counts, "_COUNT_BYTES", count_bytes)
        if not (folder / "archive").exists():
            return
        with open_archive(folder / "archive", live=path, host="h1") as source:
            assert text_of(compliance_report(source, **period)) == text_of(
                compliance_report(open_trail(path), **period)
            )


@settings(max_examples=examples(5), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    case=cases(),
    other=DRAWN,
    archives=st.sampled_from(["a", "ab"]),
    most=st.sampled_from([1, 2, 32]),
    count_bytes=COUNT_BYTES,
)
def test_report_and_users_of_two_trails_are_those_of_their_files(
    tmp_path_factory, case, other, archives, most, count_bytes
):
    """For all events of two hosts with clocks that agree: the order decides about the first and the last event of a user.

    It does so in one archive and in two, whatever fits into one query and into memory.
    """
    drawn, filters, cuts, _ = case
    drawn, other = ([(event, max(0.0, step)) for event, step in events] for events in (drawn, other))
    folder = tmp_path_factory.mktemp("case")
    paths = [written(folder / "logs-a", drawn, cuts), written(folder / "logs-b", other, [len(other), len(other)])]
    for file in paths[1].parent.iterdir():
        # Otherwise both would be one trail, which is archived once; and the order of equal times is not defined.
        lines = file.read_bytes().replace(b"80000001", b"80000002")
        file.write_bytes(lines.replace(b"000000Z", b"000300Z").replace(b"500000Z", b"500300Z"))

    found = [folder / archives[number % len(archives)] for number in range(2)]
    for path, archive in zip(paths, found, strict=True):
        compacted(path, archive)
    existing = [archive for archive in sorted(set(found)) if archive.exists()]
    if not existing:
        return

    files = open_trail(*paths)
    with pytest.MonkeyPatch.context() as patch, open_archive(*existing, live=paths, host="h1") as source:
        patch.setattr(sql_counts, "_MOST_OPERATIONS", most)
        patch.setattr(sql_counts, "_COUNT_BYTES", count_bytes)
        patch.setattr(user_totals, "_MOST_OPEN", most)
        assert as_rows(source.get_statistics_by_user(**filters)) == as_rows(files.get_statistics_by_user(**filters))
        assert text_of(compliance_report(source)) == text_of(compliance_report(files))


def test_few_queries_of_users_are_open_at_once(tmp_path, monkeypatch):
    """Each open query has buffers, so memory does not grow with the number of operations."""
    lines = [line_of(number, number, operation=f"o{number}", user_id=f"u{number % 3}") for number in range(12)]
    compacted(write_closed(tmp_path / "logs", *lines), tmp_path / "archive")
    monkeypatch.setattr(sql_counts, "_MOST_OPERATIONS", 1)

    users, is_open, counts = sql_counts.SQLCounts.users, [], []

    def counted(*arguments, **options):
        is_open.append(True)
        counts.append(len(is_open))
        yield from users(*arguments, **options)
        is_open.pop()

    monkeypatch.setattr(sql_counts.SQLCounts, "users", counted)
    with open_archive(tmp_path / "archive") as source:
        assert sum(found["total_operations"] for found in source.get_statistics_by_user().values()) == 12
    assert (len(counts), max(counts)) == (12, 4)


def test_users_beyond_the_memory_of_the_database_are_counted_in_shares(tmp_path):
    """Their counts would take twice the memory that there is: the answer is whole all the same."""
    lines = [
        line_of(number, number / 100, operation=f"o{number % 32}", user_id=f"u{number}") for number in range(15_000)
    ]
    compacted(write_closed(tmp_path / "logs", b"".join(lines)), tmp_path / "archive")
    with open_archive(tmp_path / "archive", memory_limit="44MB", threads=2) as source:
        users = source.get_statistics_by_user()
    assert [found["by_operation"] for found in users.values()] == [{f"o{number % 32}": 1} for number in range(15_000)]


def test_users_of_many_archives_are_counted_in_shares_wherever_the_large_one_is(tmp_path):
    """Also a query that is read before those that are open at once has its counts in memory."""
    lines = [
        line_of(number, number / 100, operation=f"o{number % 32}", user_id=f"u{number}") for number in range(15_000)
    ]
    trails = write_trails(tmp_path, lines, *([line_of(number)] for number in range(4)))
    archives = [tmp_path / f"archive{number}" for number in range(5)]
    for trail, archive in zip(trails, archives, strict=True):
        compacted(trail, archive)
    with open_archive(*archives, memory_limit="44MB", threads=2) as source:
        assert len(source.get_statistics_by_user()) >= 15_000


def as_rows(statistics):
    """Return the statistics of users with their orders."""
    return [(user, list(found["by_operation"].items()), found) for user, found in statistics.items()]


def write_trails(folder, *datas):
    """Write a trail of *datas* for each, with ids of its own; return the paths."""
    paths = []
    for number, lines in enumerate(datas):
        data = b"".join(lines).replace(b"80000001", b"8000000%x" % (number + 2))
        paths.append(write_closed(folder / f"logs{number}", data))
    return paths


def test_user_of_two_archives_is_one_user_whatever_the_name(tmp_path):
    """The names of users have one order in the database and in Python, beyond the basic plane of Unicode, too."""
    users = [None, "", "Z", "a", "\u00e9", "\uffff", "\U0001f600", "a\0", "nul"]
    lines = [line_of(number, number, user_id=user) for number, user in enumerate(users)]
    paths = write_trails(tmp_path, lines, lines[::-1])
    archives = [tmp_path / "a", tmp_path / "b"]
    for path, archive in zip(paths, archives, strict=True):
        compacted(path, archive)
    with open_archive(*archives) as source:
        found = source.get_statistics_by_user()
    assert {user: each["total_operations"] for user, each in found.items()} == dict.fromkeys(users, 2)


def test_user_of_several_trails_is_one_row(tmp_path, monkeypatch):
    """Python merges no rows of trails: their number changes neither its memory nor that of the database."""
    lines = [line_of(number, user_id=f"u{number % 3}") for number in range(9)]
    for path in write_trails(tmp_path, lines, lines, lines):
        compacted(path, tmp_path / "archive")
    rows = []
    query = Database.query

    def counted(self, sql, parameters, tables):
        for row in query(self, sql, parameters, tables):
            if "GROUP BY user_id" in sql:
                rows.append(row)
            yield row

    monkeypatch.setattr(Database, "query", counted)
    with open_archive(tmp_path / "archive") as source:
        assert {user: found["total_operations"] for user, found in source.get_statistics_by_user().items()} == {
            "u0": 9, "u1": 9, "u2": 9,
        }  # fmt: skip
        assert [row[0] for row in rows] == ["u0", "u1", "u2"]


TIMES = st.datetimes().map(lambda time: microseconds(time.replace(tzinfo=dt.UTC)))
FOUND = st.tuples(TIMES, st.sampled_from("abc"), st.integers(0, sql_counts.MOST_IN_TRAIL - 1))


@given(st.lists(FOUND, min_size=2, max_size=6))
def test_places_have_the_order_of_the_archive(drawn):
    """For all events: by the order key, then by trail, then by number; the order key is in the place, and 127 bits hold it."""
    places = Places("cab")
    found = sorted(Found(*each, None) for each in set(drawn))
    numbers = [places.place(each) for each in found]
    assert numbers == sorted(set(numbers))
    moments = [moment_of(number, each.at - 7) for number, each in zip(numbers, found, strict=True)]
    assert [moment_at(number, 7) for number in numbers] == moments
    # The wide integers of DuckDB, and the decimals of Spark.
    assert all(abs(number) < 10**38 < 2**127 for number in numbers)


@given(st.lists(st.tuples(st.integers(-(2**126), 2**126), st.datetimes()), min_size=2))
def test_moments_have_the_order_of_their_places(drawn):
    """For all places and times: the time only comes along."""
    times = [(place, time.replace(tzinfo=dt.UTC)) for place, time in drawn]
    moments = [moment_of(place, microseconds(time)) for place, time in times]
    assert [time_in(moment) for moment in moments] == [time for _, time in times]
    assert [place for place, _ in sorted(times, key=lambda each: moment_of(each[0], 0))] == sorted(p for p, _ in drawn)
    assert max(moments) == moments[max(range(len(times)), key=lambda n: (drawn[n][0], times[n][1]))]


@settings(max_examples=6, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_comparison_of_an_archive_is_that_of_the_files(tmp_path_factory, case):
    """For all events: the same rows."""
    drawn, _, cuts, _ = case
    folder = tmp_path_factory.mktemp("case")
    path = written(folder / "logs", drawn, cuts)
    compacted(path, folder / "archive")
    if not (folder / "archive").exists():
        return

    period = {"start_time": at(2), "end_time": at(100_000)}
    with open_archive(folder / "archive", live=path, host="h1") as source:
        assert text_of(comparison_report(source, **period)) == text_of(comparison_report(open_trail(path), **period))


def test_open_intents_of_an_archive_are_those_of_the_files(tmp_path):
    """An intent is closed by an outcome after it, archived or live, and not by one before it or by another value."""
    intents = [line_of(number, kind="intent", entry_ids=[f"e{number}"]) for number in range(5)]
    early = outcome(10, 0, intents[4])
    closed = early + b"".join(intents) + outcome(11, 6, intents[0])
    listed = line_of(12, 7, metadata={"intent_id": [json.loads(intents[3])["event_id"]]})
    path = write_closed(tmp_path / "logs", closed + listed, last=80_000)
    with path.open("ab") as file:
        file.write(outcome(13, 100_000, intents[1]))
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        found = compliance_report(source)
        assert text_of(found) == text_of(compliance_report(open_trail(path)))
        assert found.to_dict()["open_intents"]["total"] == 3


def test_lists_unknown_statuses_and_durations_of_an_archive_are_those_of_the_files(tmp_path):
    """More events than a list has, marked ones, times before 1970, and durations whose sum is not one of doubles."""
    marked = {"_audit": {"status": f"{UNKNOWN_STATUS} archived"}}
    lines = []
    for number in range(150):
        operation = ("document.delete", "export.csv", "store", "STORE")[number % 4]
        line = line_of(
            number,
            -3e9 if number == 149 else number // 2,
            user_id=f"u{number % 3}",
            entry_ids=["e"] * (number % 3),
            status=("SUCCESS", "FAILURE")[number % 2],
            metadata=marked if number % 50 == 0 else {"n": number},
            duration_ms=[0.1, 1e-9, 3e8, 0.0, 1e16, 5e-324][number % 6],
        )
        lines.append(line.replace(b'"operation":"STORE"', f'"operation":"{operation}"'.encode(), 1))
    path = write_trail(
        tmp_path / "logs",
        (1_000, b"".join(lines[:80])),
        (2_000, b"".join(lines[80:140])),
        (3_000, b""),
        active=b"".join(lines[140:]),
    )
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        found = compliance_report(source)
        expected = compliance_report(open_trail(path))
        assert text_of(found) == text_of(expected)
        assert found.to_dict()["unknown_status"] == 3
        assert found.to_dict()["failures"]["total"] == 75
        assert source.get_statistics()["avg_duration_ms"] == open_trail(path).get_statistics()["avg_duration_ms"]


def test_report_reads_only_the_events_that_it_lists(tmp_path, taken):
    """No selection of a report takes all events, in UTC or in another zone."""
    lines = b"".join(line_of(number, 9_000 * number, user_id=f"u{number % 9}") for number in range(40))
    path = write_closed(tmp_path / "logs", lines)
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive") as source:
        for zone in (None, "Europe/Berlin"):
            assert compliance_report(source, tz=zone).to_dict()["summary"]["total_events"] == 40
    assert len(taken) <= 4


PSEUDONYM = f"hmac:k2:{'x' * 22}"
TOKEN = f"s_{'t' * 32}"
SECRET = b"secret" * 6


@settings(max_examples=6, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    case=cases(),
    person=st.sampled_from(["ann", "zoë", "e1", "x", "1", "true", "null", "{}", "[]", "nobody"]),
    members=st.lists(st.sampled_from(["a", "a.b", "A", "é"]), max_size=2),
    most=st.sampled_from([0, 32]),
)
def test_report_on_a_person_of_an_archive_is_that_of_the_files(tmp_path_factory, case, person, members, most):
    """For all events, persons and members: the same text, whatever SQL leaves out."""
    drawn, _, cuts, promoted = case
    folder = tmp_path_factory.mktemp("case")
    path = written(folder / "logs", drawn, cuts)
    compacted(path, folder / "archive", promote=promoted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field_sql, "_MOST_ITEMS", most)
        if not (folder / "archive").exists():
            return
        search = {"members": members, "start_time": at(1), "operations": {"RECALL": "create"}}
        with open_archive(folder / "archive", live=path, host="h1") as source:
            assert text_of(person_report(source, person, **search)) == text_of(
                person_report(open_trail(path), person, **search)
            )


@pytest.mark.parametrize("identity", ["ann", TOKEN])
@pytest.mark.parametrize("versions", [[], ["k1"], ["k1", "k2"]])
def test_pseudonyms_of_a_person_in_an_archive_are_those_of_the_files(tmp_path, identity, versions):
    """Sessions, entries, members, encrypted values and intents that concern the person, and pseudonyms without a key, count."""
    redactors = [Redactor(secret=SECRET, key_version=version) for version in versions]
    own = Redactor(secret=SECRET, key_version="k1").pseudonym(identity)
    erasable = {"_erasable": "…", "_subject": TOKEN}
    intent = line_of(60, user_id=own, kind="intent")
    others = [
        {"session_id": "s1"}, {"session_id": PSEUDONYM}, {"session_id": identity}, {"entry_ids": ["e1", "x"]},
        {"entry_ids": ["x", PSEUDONYM]}, {"entry_ids": [f"s_{'u' * 32}"]}, {"entry_ids": [own]},
        {"metadata": {"a": {"b": [own, 1]}}}, {"metadata": {"a.b": PSEUDONYM}}, {"metadata": {"a": {"b": f"{PSEUDONYM}x"}}},
        {"metadata": {"deep": [{"x": erasable}]}}, {"error_message": json.dumps(erasable, separators=(",", ":"))},
        {"user_id": PSEUDONYM}, {"user_id": f"hmac:k1:{'z' * 22}"}, {"user_id": "s_short"}, {"metadata": {"a": "no"}},
        {"metadata": {"intent_id": json.loads(intent)["event_id"]}}, {"kind": "gap", "metadata": {"lost": 3}},
        {"kind": "trail", "metadata": {"subject": identity}},
    ]  # fmt: skip
    lines = [
        line_of(0, user_id=own, session_id="s1", entry_ids=["e1", "e2"]),
        intent,
        *(line_of(number, 1, **{"user_id": "bob", **other}) for number, other in enumerate(others, 1)),
    ]
    path = write_closed(tmp_path / "logs", b"".join(lines))
    compacted(path, tmp_path / "archive")

    search = {"redactors": redactors, "members": ["a.b"], "operations": {"STORE": "create"}}
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        found = person_report(source, identity, **search)
        assert text_of(found) == text_of(person_report(open_trail(path), identity, **search))
        assert bool(found.to_dict()["unsearched"].get("pseudonym of key k2")) is ("k2" not in versions)


def test_hints_of_an_archive_are_those_of_the_files(tmp_path):
    """Why there is nothing: the nearest and the most common values, those with equal counts in the order of the first."""
    users = ["zoe", None, "Ann", "bob", "zoe", "ann ", "bob", "eve", "carl"]
    lines = [line_of(number, user_id=user) for number, user in enumerate(users)]
    path = write_closed(tmp_path / "logs", b"".join(lines[:4]), b"".join(lines[4:7]))
    with path.open("ab") as file:
        file.write(b"".join(lines[7:]))
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        for user in ("ann", "q", "1"):
            found = compliance_report(source, user_id=user)
            assert found.to_dict()["activity"]["hints"]
            assert text_of(found) == text_of(compliance_report(open_trail(path), user_id=user))


@pytest.mark.parametrize(
    "search", [{"user_id": "nobody"}, {"person": "nobody"}, {"person": "u1", "members": ["tenant"]}]
)
def test_report_on_a_user_reads_only_their_events(tmp_path, taken, search):
    """A user without events, and a person among many, cost no reading of the events of others."""
    lines = [line_of(number, user_id=f"u{number % 90}", metadata={"tenant": "x"}) for number in range(360)]
    path = write_closed(tmp_path / "logs", b"".join(lines))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive") as source:
        compliance_report(source, **search)
    assert len(taken) <= 4


@example(durations=[1e-320, 2.0**24, 2.0**24 - 2**-29, 0.1, 0.2, 0.3])
@settings(max_examples=examples(12), suppress_health_check=list(HealthCheck))
@given(durations=st.lists(st.floats(0, allow_infinity=False), min_size=1, max_size=30))
def test_average_of_an_archive_is_exactly_that_of_the_files(tmp_path_factory, durations):
    """For all durations: the sum is exact, not one of doubles."""
    folder = tmp_path_factory.mktemp("case")
    lines = [line_of(number, duration_ms=duration) for number, duration in enumerate(durations)]
    path = write_closed(folder / "logs", b"".join(lines))
    compacted(path, folder / "archive")
    with open_archive(folder / "archive", live=path, host="h1") as source:
        average = source.get_statistics()["avg_duration_ms"]
    assert average == open_trail(path).get_statistics()["avg_duration_ms"]
