"""``monitor``: the alerts that rules raise over a trail."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import subprocess

import pytest
from commands import GOLDEN, PROGRAM, environment, process, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import examples

from structlog_audit.cli.conditions import EVERY_KIND
from structlog_audit.events.codec import encode_event
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of
from structlog_audit.monitoring import replay
from structlog_audit.trail.reading.opening import open_trail

FAILURES = {"name": "failures", "status": "FAILURE", "more_than": 1, "within": "1h"}
START = dt.datetime(2025, 1, 15, 10, tzinfo=dt.UTC)


@pytest.fixture
def trail(tmp_path):
    """Return a copy of the golden trail in a new folder."""
    shutil.copy(GOLDEN, tmp_path / "audit.jsonl")
    return tmp_path / "audit.jsonl"


def rules_in(folder, *rules):
    """Write *rules* to a file in *folder* and return its path."""
    (folder / "rules.json").write_text(json.dumps({"rules": list(rules)}))
    return folder / "rules.json"


def line(number, seconds=0, operation="STORE", user="ann", **members):
    """Return a line of a trail."""
    event = AuditEvent(
        event_id=f"evt_{number:032x}", timestamp=START + dt.timedelta(seconds=seconds), operation=operation_of(operation),
        user_id=user, **members,
    )  # fmt: skip
    return encode_event(event) + b"\n"


def failing(*numbers):
    return b"".join(line(number, number, status=EventStatus.FAILURE) for number in numbers)


def test_alerts_are_lines_and_exit_code_1(tmp_path):
    """Each alert is a line with time, level, text and event, and the exit code is 1; without alerts it is 0."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2, 3))
    rules = rules_in(tmp_path, FAILURES | {"per": "user_id", "level": "ERROR"})
    done = run("monitor", "--rules", rules, tmp_path / "audit.jsonl")
    text = "ERROR  failures: more than 1 events within 1h, user_id 'ann'"
    assert done.lines == [f"2025-01-15T10:00:02.000+00:00  {text}  [evt_{2:032x}]"]
    assert (done.code, done.err) == (1, "")
    quiet = run("monitor", "--rules", rules_in(tmp_path, FAILURES | {"more_than": 3}), tmp_path / "audit.jsonl")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_rule_whose_value_never_occurs_gets_a_hint(tmp_path):
    """Without alerts, a value of a rule that no event has is named on stderr; the exit code stays 0."""
    (tmp_path / "audit.jsonl").write_bytes(line(1, operation="document.delete"))
    rules = rules_in(tmp_path, {"name": "deletions", "operation": "delete", "more_than": 3, "within": "1h"})
    done = run("monitor", "--rules", rules, tmp_path / "audit.jsonl")
    assert (done.code, done.out) == (0, "")
    assert done.error_line == "no event has operation 'delete'; near: 'document.delete' (1)"


def test_rule_on_failures_without_any_gets_no_hint(tmp_path):
    """That no event has the status of a rule is no mistake."""
    (tmp_path / "audit.jsonl").write_bytes(line(1))
    done = run("monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "")


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 5_000),
        st.sampled_from(["STORE", "FORGET", "login"]),
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from(EventStatus),
        st.sampled_from([None, None, "intent", "trail"]),
    ),
    max_size=40,
)  # fmt: skip
RULES = [
    FAILURES,
    {"name": "each", "more_than": 2, "within": "10m", "per": "user_id"},
    {"name": "rate", "success_rate_below": 0.5, "within": "30m", "min_events": 3},
    {"name": "intents", "kind": "intent", "more_than": 0, "within": "1m", "quiet": "5m"},
    {"name": "new", "first_seen": ["user_id", "operation"], "within": "1h"},
    {"name": "quiet", "no_event_for": "10m", "per": "user_id"},
]


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_jsonl_equals_the_alerts_of_replay(tmp_path, events):
    """For all events, -o jsonl has a line, and -o json an item, for each alert of `replay` over events of every kind."""
    lines = [
        line(number, seconds, operation, user, status=status, kind=kind)
        for number, (seconds, operation, user, status, kind) in enumerate(events)
    ]
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    words = ["monitor", "--rules", rules_in(tmp_path, *RULES), tmp_path / "audit.jsonl"]
    done = run(*words, "-o", "jsonl")
    alerts = list(replay(RULES, open_trail(tmp_path / "audit.jsonl").iter_events(kind=EVERY_KIND)))
    assert done.events == [alert.to_dict() for alert in alerts]
    assert done.code == bool(alerts)

    whole = run(*words, "-o", "json")
    assert json.loads(whole.out) == {"alerts": done.events, "total_alerts": len(alerts)}
    assert whole.code == done.code


def test_conditions_and_times_select_the_events(tmp_path):
    """The rules see only the events that the conditions and times select."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2) + line(3, 3, user="bob", status=EventStatus.FAILURE))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl"]
    assert run(*words, "user_id=ann").code == 1
    assert run(*words, "user_id=bob").code == 0
    assert run(*words, "user_id!=ann").code == 0
    assert run(*words, "--until", "2025-01-15T10:00:02Z").code == 0
    assert run(*words, "--since", "2025-01-15T10:00:02Z").code == 1


@pytest.mark.parametrize(
    ("rule", "fragments"),
    [
        ({"more_then": 1}, ["rule 'failures'", "'more_then'", "expected one of name, within, more_than"]),
        ({"within": "-5m"}, ["rule 'failures'", "within='-5m'", "expected a duration such as 90s"]),
        ({"within": -5}, ["rule 'failures'", "within=-5", "expected 1s or more"]),
        ({"more_than": "many"}, ["rule 'failures'", "more_than='many'", "expected an integer"]),
        ({"per": ["user"]}, ["rule 'failures'", "per=['user']", "expected one of 'user_id'", "got 'user'"]),
        ({"status": "BAD"}, ["rule 'failures'", "status='BAD'", "expected one of SUCCESS"]),
        ({"name": 5}, ["rule 2", "name=5", "expected a name"]),
        ({"name": "first"}, ["two rules have the name 'first'", "a different name for each"]),
    ],
)
def test_invalid_rule_is_named_with_a_remedy(trail, tmp_path, rule, fragments):
    """An invalid rule is reported in one line with file, rule, member and remedy; nothing is recorded."""
    rules, before = rules_in(tmp_path, FAILURES | {"name": "first"}, FAILURES | rule), trail.read_bytes()
    done = run("monitor", "--rules", rules, trail, "--record")
    assert (done.code, done.out) == (3, "")
    assert all(words in done.error_line for words in [str(rules), *fragments]), done.error_line
    assert trail.read_bytes() == before


@pytest.mark.parametrize("missing", ["name", "within"])
def test_missing_member_of_a_rule_is_named(trail, tmp_path, missing):
    """A rule without a name or a window is an error that names the missing member."""
    done = run("monitor", "--rules", rules_in(tmp_path, {k: v for k, v in FAILURES.items() if k != missing}), trail)
    assert done.code == 3
    assert f"{missing!r} is missing: expected" in done.error_line


def test_rules_file_must_exist_in_a_known_format(trail, tmp_path):
    """The suffix of the file determines its format; an unknown suffix and a missing file are errors."""
    (tmp_path / "rules.toml").write_text('[[rules]]\nname = "any"\nmore_than = 0\nwithin = "1h"\n')
    assert run("monitor", "--rules", tmp_path / "rules.toml", trail).code == 1
    assert run("monitor", "--rules", tmp_path / "none.toml", trail).error_line.endswith(
        "none.toml': No such file or directory"
    )
    (tmp_path / "rules.txt").touch()
    assert "with the suffix .toml, .json" in run("monitor", "--rules", tmp_path / "rules.txt", trail).error_line


def test_rules_and_trail_are_required_and_followed_without_end(trail, tmp_path):
    """No --rules, no trail, and --follow with --until are usage errors."""
    (tmp_path / "rules.toml").write_text('[[rules]]\nname = "any"\nmore_than = 0\nwithin = "1h"\n')
    assert run("monitor", trail).code == 2
    assert run("monitor", "--rules", tmp_path / "rules.toml").code == 2
    assert run("monitor", "--rules", tmp_path / "rules.toml", trail, "-f", "-U", "now").code == 2


def test_strict_exits_with_4_for_unreadable_lines(tmp_path):
    """Unreadable lines are counted on stderr and alerts are shown all the same; --strict exits with 4."""
    (tmp_path / "audit.jsonl").write_bytes(b"no event\n" + failing(1, 2))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl"]
    done = run(*words)
    assert (done.code, len(done.lines)) == (1, 1)
    assert "1 foreign" in done.error_line
    assert run(*words, "--strict").code == 4


def test_record_names_the_command(tmp_path):
    """--record leaves an event that names the command."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl"]
    assert run(*words, "--record").code == 1
    (read,) = open_trail(tmp_path / "audit.jsonl").query_events(kind="trail", operation="read")
    assert read.metadata["command"] == "monitor"


def test_following_shows_each_alert_at_once(tmp_path):
    """With --follow the windows include earlier events, alerts are shown at once, and Ctrl-C exits with 130."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(failing(1, 2))
    rules = rules_in(tmp_path, FAILURES | {"name": "two"}, FAILURES | {"name": "three", "more_than": 2})
    command = [*PROGRAM, "monitor", "--rules", str(rules), "-o", "jsonl", "-f", str(trail)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as done:
        assert json.loads(done.stdout.readline())["rule"] == "two"
        with trail.open("ab") as file:
            file.write(failing(3))
        assert json.loads(done.stdout.readline())["rule"] == "three"
        done.send_signal(signal.SIGINT)
        out, err = done.communicate(timeout=60)
    assert (done.returncode, err, out) == (130, b"", b"")


def test_following_stdin_ends_with_it(tmp_path):
    """Following stdin ends when it does, and the exit code reports whether there was an alert."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), "-f", "-"]
    for condition, code in (("user_id!=bob", 1), ("user_id!=ann", 0)):
        with (tmp_path / "audit.jsonl").open("rb") as file:
            assert process(*words, condition, stdin=file).code == code


# Values, silence and hours

NEW = {"name": "new user", "first_seen": "user_id"}
QUIET = {"name": "quiet", "no_event_for": "30m", "operation": "STORE"}


def test_values_before_since_are_not_new(tmp_path):
    """With --since, users of earlier events are known, also from stdin; the rule alerts for later ones only."""
    (tmp_path / "audit.jsonl").write_bytes(line(1) + line(2, 60, user="bob") + line(3, 120) + line(4, 180, user="cid"))
    words = ["monitor", "--rules", rules_in(tmp_path, NEW), "-S", "2025-01-15T10:01:30Z", "-o", "jsonl"]
    assert [alert["subject"] for alert in run(*words, tmp_path / "audit.jsonl").events] == ["cid"]
    with (tmp_path / "audit.jsonl").open("rb") as file:
        done = process(*words, "-", stdin=file)
    assert [json.loads(alert)["subject"] for alert in done.out.splitlines()] == ["cid"]


@pytest.mark.parametrize(
    ("times", "count"),
    [
        ([], 0),
        (["--until", "2025-01-15T10:31:00Z"], 1),
        (["--until", "2025-01-15T10:30:00Z"], 0),
        (["--until", "now"], 1),
    ],
)
def test_time_without_events_is_known_up_to_until(tmp_path, times, count):
    """Without --until, the end of the trail is no silence; with it, the silence up to then is one."""
    (tmp_path / "audit.jsonl").write_bytes(line(1))
    done = run("monitor", "--rules", rules_in(tmp_path, QUIET), tmp_path / "audit.jsonl", *times)
    assert done.lines == [f"2025-01-15T10:30:00.000+00:00  WARNING  quiet: no event for 30m  [evt_{1:032x}]"] * count
    assert done.code == count


def test_silence_since_the_start_of_the_range_has_no_event(tmp_path):
    """A trail without the wanted events alerts from --since on, and the line names no event."""
    (tmp_path / "audit.jsonl").write_bytes(line(1, operation="other"))
    times = ["--since", "2025-01-15T10:00:00Z", "--until", "2025-01-15T12:00:00Z"]
    done = run("monitor", "--rules", rules_in(tmp_path, QUIET), tmp_path / "audit.jsonl", *times)
    assert done.lines == ["2025-01-15T10:30:00.000+00:00  WARNING  quiet: no event for 30m"]


def test_following_finds_silence_by_the_clock(tmp_path):
    """With --follow, silence alerts although no event comes."""
    (tmp_path / "audit.jsonl").write_bytes(line(1))
    command = [*PROGRAM, "monitor", "--rules", str(rules_in(tmp_path, QUIET)), "-f", str(tmp_path / "audit.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as done:
        assert b"quiet: no event for 30m" in done.stdout.readline()
        done.send_signal(signal.SIGINT)
        _, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (130, b"")


def test_operations_of_a_file_have_classes(tmp_path):
    """--operations classifies the operations of the application for rules."""
    (tmp_path / "audit.jsonl").write_bytes(line(1, operation="settle"))
    (tmp_path / "classes.json").write_text(json.dumps({"operations": {"settle": "delete"}}))
    deletions = {"name": "deletions", "operation_class": "delete", "more_than": 0, "within": "1h"}
    words = ["monitor", "--rules", rules_in(tmp_path, deletions), tmp_path / "audit.jsonl"]
    assert run(*words).code == 0
    assert run(*words, "--operations", tmp_path / "classes.json").code == 1


def test_dropped_values_are_reported(tmp_path):
    """A rule that had to drop values says so on stderr."""
    (tmp_path / "audit.jsonl").write_bytes(b"".join(line(number, user=f"u{number}") for number in range(3)))
    done = run("monitor", "--rules", rules_in(tmp_path, NEW | {"max_subjects": 1}), tmp_path / "audit.jsonl")
    assert done.error_line == "rule 'new user': 2 values dropped or not watched: expected a greater max_subjects"
