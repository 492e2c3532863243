"""``monitor``: the alerts of rules over a trail."""

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

from structlog_audit.cli.conditions import EVERY_KIND
from structlog_audit.events.codec import encode_event
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of
from structlog_audit.monitoring import replay
from structlog_audit.trail.reading.opening import open_trail

FAILURES = {"name": "failures", "status": "FAILURE", "more_than": 1, "within": "1h"}
START = dt.datetime(2025, 1, 15, 10, tzinfo=dt.UTC)


@pytest.fixture
def trail(tmp_path):
    """The golden trail, in a folder of its own."""
    shutil.copy(GOLDEN, tmp_path / "audit.jsonl")
    return tmp_path / "audit.jsonl"


def rules_in(folder, *rules):
    """A file with *rules*."""
    (folder / "rules.json").write_text(json.dumps({"rules": list(rules)}))
    return folder / "rules.json"


def line(number, seconds=0, operation="STORE", user="ann", **members):
    """A line of a trail."""
    event = AuditEvent(
        event_id=f"evt_{number:032x}", timestamp=START + dt.timedelta(seconds=seconds), operation=operation_of(operation),
        user_id=user, **members,
    )  # fmt: skip
    return encode_event(event) + b"\n"


def failing(*numbers):
    return b"".join(line(number, number, status=EventStatus.FAILURE) for number in numbers)


def test_alerts_are_lines_and_the_exit_code(tmp_path):
    """Each alert is a line with its time, level, text and event, and the exit code 1; without any there is silence, and 0."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2, 3))
    rules = rules_in(tmp_path, FAILURES | {"per": "user_id", "level": "ERROR"})
    done = run("monitor", "--rules", rules, tmp_path / "audit.jsonl")
    text = "ERROR  failures: more than 1 events within 1h, user_id 'ann'"
    assert done.lines == [f"2025-01-15T10:00:02.000+00:00  {text}  [evt_{2:032x}]"]
    assert (done.code, done.err) == (1, "")
    quiet = run("monitor", "--rules", rules_in(tmp_path, FAILURES | {"more_than": 3}), tmp_path / "audit.jsonl")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


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
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_the_alerts_are_those_of_replay(tmp_path, events):
    """For all events: the lines of -o jsonl are the alerts that `replay` gives over the events of every kind."""
    lines = [
        line(number, seconds, operation, user, status=status, kind=kind)
        for number, (seconds, operation, user, status, kind) in enumerate(events)
    ]
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    done = run("monitor", "--rules", rules_in(tmp_path, *RULES), tmp_path / "audit.jsonl", "-o", "jsonl")
    alerts = list(replay(RULES, open_trail(tmp_path / "audit.jsonl").iter_events(kind=EVERY_KIND)))
    assert done.events == [alert.to_dict() for alert in alerts]
    assert done.code == bool(alerts)


def test_conditions_and_times_choose_the_events(tmp_path):
    """Only the events that the conditions and times ask for are shown to the rules."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2) + line(3, 3, user="bob", status=EventStatus.FAILURE))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl"]
    assert run(*words, "user_id=ann").code == 1
    assert run(*words, "user_id=bob").code == 0
    assert run(*words, "user_id!=ann").code == 0
    assert run(*words, "--until", "2025-01-15T10:00:02Z").code == 0
    assert run(*words, "--since", "2025-01-15T10:00:02Z").code == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"more_then": 1}, ["rule 'failures'", "'more_then'", "use one of name, within, more_than"]),
        ({"within": "-5m"}, ["rule 'failures'", "within='-5m'", "write it as 90s"]),
        ({"within": -5}, ["rule 'failures'", "within=-5", "give 1s or more"]),
        ({"more_than": "many"}, ["rule 'failures'", "more_than='many'", "expected an integer"]),
        ({"per": ["user_id"]}, ["rule 'failures'", "per=['user_id']", "expected one of 'user_id'"]),
        ({"status": "BAD"}, ["rule 'failures'", "status='BAD'", "use one of SUCCESS"]),
        ({"name": 5}, ["rule 2", "name=5", "give it a name"]),
        ({"name": "first"}, ["two rules are called 'first'", "a name of its own"]),
    ],
)
def test_a_bad_rule_is_named_with_what_to_write(trail, tmp_path, rule, said):
    """A rule that can't be meant is said in one line: the file, the rule, the member, what to write; nothing is recorded."""
    rules, before = rules_in(tmp_path, FAILURES | {"name": "first"}, FAILURES | rule), trail.read_bytes()
    done = run("monitor", "--rules", rules, trail, "--record")
    assert (done.code, done.out) == (3, "")
    assert all(words in done.said for words in [str(rules), *said]), done.said
    assert trail.read_bytes() == before


@pytest.mark.parametrize("missing", ["name", "within"])
def test_what_a_rule_lacks_is_named(trail, tmp_path, missing):
    """A rule without a name or a window is told so, with what to write."""
    done = run("monitor", "--rules", rules_in(tmp_path, {k: v for k, v in FAILURES.items() if k != missing}), trail)
    assert done.code == 3
    assert f"{missing!r} is missing: give" in done.said


def test_rules_may_be_toml_and_must_be_there(trail, tmp_path):
    """The ending of the file says its format; another ending, no file, no --rules and no trail are errors."""
    (tmp_path / "rules.toml").write_text('[[rules]]\nname = "any"\nmore_than = 0\nwithin = "1h"\n')
    assert run("monitor", "--rules", tmp_path / "rules.toml", trail).code == 1
    assert run("monitor", "--rules", tmp_path / "none.toml", trail).said.endswith(
        "none.toml': No such file or directory"
    )
    (tmp_path / "rules.txt").touch()
    assert "ends in .toml, .json" in run("monitor", "--rules", tmp_path / "rules.txt", trail).said
    assert run("monitor", trail).code == 2
    assert run("monitor", "--rules", tmp_path / "rules.toml").code == 2
    assert run("monitor", "--rules", tmp_path / "rules.toml", trail, "-f", "-U", "now").code == 2


def test_strict_and_record_are_those_of_the_other_commands(tmp_path):
    """--strict exits with 4 for what could not be read; --record leaves an event that says what was asked."""
    (tmp_path / "audit.jsonl").write_bytes(b"no event\n" + failing(1, 2))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), tmp_path / "audit.jsonl"]
    done = run(*words)
    assert (done.code, len(done.lines)) == (1, 1)
    assert "1 foreign" in done.said
    assert run(*words, "--strict").code == 4
    assert run(*words, "--record").code == 1
    (read,) = open_trail(tmp_path / "audit.jsonl").query_events(kind="trail", operation="read")
    assert read.metadata["command"] == "monitor"


def test_following_shows_an_alert_as_it_comes(tmp_path):
    """With --follow the windows know what came before, alerts are shown at once, and Ctrl-C ends with 130."""
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


def test_following_a_stream_ends_with_it(tmp_path):
    """Followed events of stdin end when it does, with conditions too, and the exit code says whether there was an alert."""
    (tmp_path / "audit.jsonl").write_bytes(failing(1, 2))
    words = ["monitor", "--rules", rules_in(tmp_path, FAILURES), "-f", "-"]
    for condition, code in (("user_id!=bob", 1), ("user_id!=ann", 0)):
        with (tmp_path / "audit.jsonl").open("rb") as file:
            assert process(*words, condition, stdin=file).code == code
