"""The commands, their outputs and their exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import ClassVar

import pytest
from children import without_coverage
from commands import GOLDEN, PROGRAM, environment, process, run, trail_lines
from trail_files import line_of, write_trail

from structlog_audit import AuditHandler, AuditLogger, SubjectVault, open_trail
from structlog_audit.archive import compact
from structlog_audit.cli import commands, output
from structlog_audit.cli.app import COMMANDS, app
from structlog_audit.cli.conditions import EVERY_KIND
from structlog_audit.formats import FORMATS, to_line
from structlog_audit.formats.spreadsheet import safe_cell

EVENTS = list(open_trail(GOLDEN).iter_events(kind=EVERY_KIND))
IDS = [event.event_id for event in EVENTS if event.kind is None]
NAMES = [
    *(command.callback.__name__ for command in app.registered_commands),
    *(group.name for group in app.registered_groups),
]


@pytest.fixture
def trail(tmp_path):
    """Return a copy of the golden trail in a new folder."""
    shutil.copy(GOLDEN, tmp_path / "audit.jsonl")
    return tmp_path / "audit.jsonl"


def ids(result):
    return [event["event_id"] for event in result.events]


def state_of(folder):
    """Return the bytes and the modification time of every file below *folder*."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def whole_trail(tmp_path):
    """Return the path of a trail that a closed handler recorded."""
    path = tmp_path / "whole" / "audit.jsonl"
    with AuditLogger(filename=path) as audit:
        for operation in ("STORE", "RECALL", "FORGET"):
            audit.record(operation, "ann")
    return path


class TestQuery:
    """``query`` shows events."""

    def test_jsonl_repeats_the_lines_of_the_trail(self, trail):
        """With -o jsonl the ordinary events are written byte by byte, oldest first; with --all, all events."""
        written = {json.loads(line)["event_id"]: line for line in GOLDEN.read_text(encoding="utf-8").splitlines()}
        shown = run("query", trail, "-o", "jsonl").lines
        assert [json.loads(line)["event_id"] for line in shown] == IDS
        different = [line for line in shown if line != written[json.loads(line)["event_id"]]]
        # The event that is continued in parts.
        assert len(different) == 1
        assert len(json.loads(different[0])["entry_ids"]) > len(
            json.loads(written[json.loads(different[0])["event_id"]])["entry_ids"]
        )
        assert len(run("query", trail, "-o", "jsonl", "--all").lines) == len(EVENTS)

    def test_lines_limits_to_the_newest(self, trail):
        """-n N shows the newest N, oldest first; -r reverses the order; -n 0 shows none."""
        assert ids(run("query", trail, "-o", "jsonl", "-n", 3)) == IDS[-3:]
        assert ids(run("query", trail, "-o", "jsonl", "-r")) == IDS[::-1]
        assert ids(run("query", trail, "-o", "jsonl", "-r", "-n", 3)) == IDS[:-4:-1]
        assert ids(run("query", trail, "-o", "jsonl", "-n", 1000)) == IDS
        assert ids(run("query", trail, "-o", "jsonl", "-n", 10**20)) == IDS
        assert run("query", trail, "-n", 0).code == 1

    def test_conditions_and_times_combine(self, trail):
        """Conditions and the half-open time range must all hold."""
        since, until = "2025-01-15T10:30:02Z", "2025-01-15T10:30:05Z"
        found = ids(run("query", trail, "-o", "jsonl", "-S", since, "--until", until, "user_id=ann", "user_id=bob"))
        assert found == [
            e.event_id for e in EVENTS if 2 <= e.timestamp.second < 5 and e.user_id in ("ann", "bob") and not e.kind
        ]
        assert 0 < len(found) < 10

    def test_json_is_the_document_of_an_export(self, trail):
        """-o json is one document with the events and their number, even without events."""
        found = json.loads(run("query", trail, "-o", "json", "user_id=ann").out)
        assert found["total_events"] == len(found["events"]) == 13
        assert json.loads(run("query", trail, "-o", "json", "user_id=nobody").out)["events"] == []

    def test_columns_select_by_name(self, trail):
        """--columns names the columns of text and csv, of members and of values in the metadata, in their order."""
        words = (
            trail,
            "user_id=ann",
            "operation=STORE",
            "--utc",
            "--columns",
            "timestamp, user_id,metadata.source,kind",
        )
        for command in ("query", "tail"):
            head, row, *_ = run(command, *words).lines
            assert head.split() == ["timestamp", "user_id", "metadata.source", "kind"]
            time, user, _, kind = row.split()
            assert (time[:10], user, kind) == ("2025-01-15", "ann", "–")
            assert [head.index(name) for name in ("user_id", "kind")] == [row.index("ann"), row.rindex("–")]
            sheet = csv.DictReader(io.StringIO(run(command, *words, "-o", "csv").out))
            assert next(sheet)["user_id"] == "ann"
            assert sheet.fieldnames == ["timestamp", "user_id", "metadata.source", "kind"]

    def test_column_of_a_table_shows_any_value_on_one_line(self, tmp_path):
        """A list of entries, an object and a text with spaces or control characters are one clean cell each."""
        with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
            audit.record("STORE", "a b", "\x1b[31m", ["e1", "e2"], {"deep": {"n": 1, "flag": True}})
        names = ("operation", "user_id", "session_id", "entry_ids", "metadata", "metadata.deep.n", "metadata.deep.flag")
        shown = run("query", tmp_path / "audit.jsonl", "--columns", ",".join(names)).lines[1]
        cells = ["STORE", '"a b"', "\\x1b[31m", "e1,e2", '{"deep":{"n":1,"flag":true}}', "1", "true"]
        assert re.split("  +", shown) == cells

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (["--columns", "time"], "--columns: expected event_id, timestamp, "),
            (["--columns", "user_id,user_id"], "'user_id' twice"),
            (["--columns", "user_id", "-o", "json"], "expected --output text or csv, got json"),
        ],
    )
    def test_column_that_the_output_cannot_have_is_an_error(self, trail, words, reason):
        """An unknown column, a repeated one and an output without columns are usage errors, and no reading is recorded."""
        before = trail.read_bytes()
        done = run("query", trail, *words, "--record")
        assert (done.code, trail.read_bytes()) == (2, before)
        assert reason in done.error_line

    def test_csv_is_complete_without_formulas(self, trail):
        """-o csv is the table of an export, with formulas disarmed."""
        rows = list(csv.DictReader(io.StringIO(run("query", trail, "-o", "csv").out)))
        assert [row["event_id"] for row in rows] == IDS
        assert "=1+1" in "".join(row["entry_ids"] for row in rows)
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())

    def test_table_has_a_line_for_each_event(self, trail):
        """A table has a head, and for each event a line with time, operation, status, user and all other fields."""
        head, first, *rest = run("query", trail).lines
        assert head.split() == ["TIME", "OPERATION", "STATUS", "USER", "DETAILS"]
        assert first.split() == [
            "2025-01-15T10:30:01.500+00:00", "STORE", "SUCCESS", "ann", "entries=e1", "ms=45.2", "session=s1", "source=api",
            'user={"plan":"pro","seats":5}', 'tags=["verified","eu"]',
        ]  # fmt: skip
        assert len(rest) == len(IDS) - 1

    def test_times_of_a_table_are_accepted_as_since(self, trail):
        """A table shows local time with its offset, or UTC with --utc; --since accepts both."""
        in_berlin = process("query", trail, env=environment(TZ="Europe/Berlin")).lines[1].split()[0]
        assert in_berlin == "2025-01-15T11:30:01.500+01:00"
        in_utc = run("query", trail, "--utc").lines[1].split()[0]
        assert in_utc == "2025-01-15T10:30:01.500Z"
        for time in (in_berlin, in_utc):
            assert len(ids(run("query", trail, "-o", "jsonl", "-S", time))) == len(IDS)
            assert ids(run("query", trail, "-o", "jsonl", "-U", time)) == []
        local = process("query", trail, "-S", "2025-01-15T11:30:59", "-o", "jsonl", env=environment(TZ="Europe/Berlin"))
        assert ids(local) == ids(run("query", trail, "-S", "2025-01-15 10:30:59", "--utc", "-o", "jsonl")) != []

    def test_stdin_is_a_trail(self, trail):
        """- reads a trail from stdin."""
        assert ids(run("query", "-", "-o", "jsonl", input=GOLDEN.read_bytes())) == IDS
        with GOLDEN.open("rb") as file:
            assert len(process("query", "-", "-o", "jsonl", "user_id=bob", stdin=file).events) == 11

    def test_tail_of_stdin_shows_or_follows_it(self):
        """tail - shows the newest events of stdin, and tail -f - all of them, until stdin ends."""
        with GOLDEN.open("rb") as file:
            assert ids(process("tail", "-f", "-", "-o", "jsonl", stdin=file)) == IDS
        assert ids(run("tail", "-", "-o", "jsonl", input=GOLDEN.read_bytes())) == IDS[-10:]

    def test_tests_beyond_the_query_apply_before_the_limit(self, trail):
        """Conditions that a query has no filter for apply before -n, in both orders."""
        matching = [e.event_id for e in EVENTS if e.user_id != "ann" and not e.kind]
        assert ids(run("query", trail, "-o", "jsonl", "-n", 3, "user_id!=ann")) == matching[-3:]
        assert ids(run("query", trail, "-o", "jsonl", "-n", 3, "-r", "user_id!=ann")) == matching[:-4:-1]
        assert ids(run("tail", trail, "-o", "jsonl", "-n", 2, "user_id!=ann")) == matching[-2:]

    def test_folder_pattern_and_list_of_files_are_a_trail(self, trail, tmp_path):
        """A folder is the trails in it; with a pattern or the files of one, every segment counts once."""
        lines = GOLDEN.read_bytes().splitlines(keepends=True)
        (tmp_path / "audit.jsonl.20250115T103100.000000Z").write_bytes(b"".join(lines[:20]))
        trail.write_bytes(b"".join(lines[20:]))
        for words in (
            [tmp_path],
            [f"{tmp_path}/audit.jsonl*"],
            sorted(tmp_path.iterdir()),
            sorted(tmp_path.iterdir())[::-1],
        ):
            assert ids(run("query", *words, "-o", "jsonl")) == IDS

    def test_several_trails_are_merged(self, trail, tmp_path):
        """Several trails are queried together; a trail that is named twice counts once."""
        with AuditLogger(filename=tmp_path / "other.jsonl") as logger:
            logger.record("login", "ann")
        both = run(
            "query", trail, tmp_path / "other.jsonl", "-o", "jsonl", "user_id=ann", "operation=login", "operation=STORE"
        )
        assert both.events[-1]["operation"] == "login"
        assert ids(run("query", trail, trail, "-o", "jsonl")) == IDS

    def test_rolled_and_packed_segments_are_read(self, trail, tmp_path):
        """The rolled segments next to the active file are read, those packed with gzip included."""
        import gzip

        packed = gzip.compress(b"".join(GOLDEN.read_bytes().splitlines(keepends=True)[:20]))
        (tmp_path / "audit.jsonl.20250115T103100.000000Z.gz").write_bytes(packed)
        trail.write_bytes(b"".join(GOLDEN.read_bytes().splitlines(keepends=True)[20:]))
        assert ids(run("query", trail, "-o", "jsonl")) == IDS


class TestHints:
    """A query without an answer says why on stderr."""

    @pytest.mark.parametrize(
        ("condition", "hint"),
        [
            ("user_id=Ann", "no event has user_id 'Ann'; near: 'ann' (13)"),
            ("session_id=S1", "no event has session_id 'S1'; near: 's1' (6)"),
            ("operation=forgett", "no event has operation 'forgett'; near: 'FORGET' (7)"),
            ("operation=ST*", "no event has operation 'ST*'; near: 'STORE' (12)"),
            ("metadata.source=apu", "no event has metadata.source 'apu'; near: 'api' (8)"),
            (
                "operation_class=configuration",
                "no event has operation_class 'configuration'; the most common: 'create' (18), 'read' (10), 'delete' (9)",
            ),
            ("metadata.sorce=api", "no event has the key 'sorce' in its metadata; near: 'source' (11), 'forced' (2)"),
        ],
    )
    def test_absent_value_gets_a_hint_with_near_ones(self, trail, condition, hint):
        """A value that no event has is named on stderr with near values, from a file and from stdin."""
        for source, input in ((trail, None), ("-", trail.read_bytes())):
            done = run("query", source, condition, input=input)
            assert (done.code, done.out, done.error_line) == (1, "", hint)

    @pytest.mark.parametrize(
        "words",
        [
            ["query", "-o", "json"],
            ["tail"],
            ["stats", "-o", "json"],
            ["users", "-o", "csv"],
            ["export", "--to", "x.jsonl"],
        ],
    )
    def test_every_command_with_conditions_gives_hints_on_stderr_only(self, trail, words, monkeypatch):
        """Each command that selects events gives the hint; its stdout and exit code are as without it."""
        monkeypatch.chdir(trail.parent)
        done = run(*words, trail, "user_id=Ann")
        assert done.error_line == "no event has user_id 'Ann'; near: 'ann' (13)"
        assert "near" not in done.out
        assert done.code == (1 if words[0] in ("query", "tail") else 0)

    @pytest.mark.parametrize(
        "words",
        [
            ["user_id=ann"],
            ["user_id=ann", "operation=nothing"],
            ["user_id=ann", "user_id=Ann"],
            ["user_id=ann", "operation=EXPORT", "status=PARTIAL"],
            ["user_id!=Ann", "operation~^nothing"],
            ["-n", "0", "user_id=Ann"],
        ],
    )
    def test_hints_are_given_for_absent_values_of_empty_answers_only(self, trail, words):
        """A query with answers gets no hint, nor does a value that some event has, or a condition other than ``=``."""
        done = run("query", trail, *words)
        absent = "operation 'nothing'" if "operation=nothing" in words else ""
        assert done.err.count("no event has") == bool(absent)
        assert absent in done.err

    def test_time_range_limits_the_hints(self, trail):
        """Near values are those of the time range; without any event in it there is no hint."""
        assert run("query", trail, "user_id=Ann", "--since", "2030-01-01").err == ""

    def test_clear_name_of_a_pseudonym_is_explained(self, tmp_path):
        """A clear name that is asked of pseudonyms gets the reason; their own form finds the events."""
        with AuditLogger(
            filename=tmp_path / "audit.jsonl", redactor={"keys": {"user_id": "pseudonym"}, "secret": "s" * 32}
        ) as audit:
            audit.record("STORE", "ann")
        done = run("query", tmp_path / "audit.jsonl", "user_id=ann")
        assert done.error_line.startswith(
            "no event has user_id 'ann': 1 event has a pseudonym as user_id; without the key"
        )
        (event,) = open_trail(tmp_path / "audit.jsonl").query_events()
        assert run("query", tmp_path / "audit.jsonl", f"user_id={event.user_id}").err == ""


class TestCounts:
    """``stats`` and ``users`` count."""

    def test_stats_json_equals_get_statistics(self, trail):
        """The JSON has every figure of get_statistics for the selected events."""
        handler = AuditHandler(filename=trail, warm_start=True)
        for words, filters in (((), {}), (("user_id=bob",), {"user_id": "bob"})):
            expected = handler.get_statistics(**filters)
            found = json.loads(run("stats", trail, *words, "-o", "json").out)
            for name in (
                "total_events",
                "success_rate",
                "avg_duration_ms",
                "p95_duration_ms",
                "by_operation",
                "by_status",
                "by_user",
            ):
                assert found[name] == expected[name]
            assert found["first_event"] == expected["first_event"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        handler.close()

    def test_stats_counts_conditions_without_a_filter(self, trail):
        """Events are counted by conditions that a query has no filter for."""
        found = json.loads(run("stats", trail, "user_id!=ann", "status!=SUCCESS", "-o", "json").out)
        assert found["total_events"] == sum(e.user_id != "ann" and e.status != "SUCCESS" and not e.kind for e in EVENTS)

    def test_stats_table_shows_the_figures(self, trail):
        """The table has totals, rates, durations, and the most common operations and users."""
        out = run("stats", trail, "--utc").out
        assert re.search(r"^events +53$", out, re.MULTILINE)
        assert re.search(r"^succeeded +81\.1%  \(SUCCESS 43, FAILURE 5, PARTIAL 5\)$", out, re.MULTILINE)
        assert re.search(r"^first, last +2025-01-15T10:30:01\.500Z  2025-01-15T10:30:59\.999Z$", out, re.MULTILINE)
        assert re.search(r"^STORE +12$", out, re.MULTILINE)
        assert re.search(r'^"" +1$', out, re.MULTILINE)

    def test_stats_show_a_dash_where_there_is_nothing(self, trail):
        """Without events there is neither a success rate nor a duration nor a time, and without durations no duration."""
        figures = dict(line.split(maxsplit=1) for line in run("stats", trail, "user_id=nobody").lines[:5])
        assert (figures["events"], figures["succeeded"], figures["milliseconds"]) == ("0", "–", "–")
        assert re.search(r"^first, last +–  –$", run("stats", trail, "user_id=nobody").out, re.MULTILINE)
        untimed = run("stats", trail, "duration_ms=").out
        assert re.search(r"^milliseconds +–$", untimed, re.MULTILINE)
        assert re.search(r"^succeeded +\d", untimed, re.MULTILINE)

    def test_stats_counts_classes_and_names_what_has_none(self, trail):
        """The figures have every class, and the operations without a class by their names."""
        found = json.loads(run("stats", trail, "-o", "json").out)
        assert found["by_class"]["delete"] == found["by_operation"]["FORGET"] + found["by_operation"]["delete"] + 1
        assert found["by_class"]["configuration"] == 0
        assert found["unclassified"] == {"ünïcode.wörk": 1}
        assert sum(found["by_class"].values()) + 1 == found["total_events"]
        assert re.search(r"^UNCLASSIFIED +EVENTS\nünïcode\.wörk +1$", run("stats", trail).out, re.MULTILINE)

    def test_stats_classify_by_a_file_of_operations(self, trail, tmp_path):
        """--operations extends the classes by the entries of a file."""
        (tmp_path / "operations.toml").write_text('[operations]\n"ünïcode.wörk" = "export"\n')
        words = ("stats", trail, "--operations", tmp_path / "operations.toml", "-o", "json")
        assert json.loads(run(*words).out)["unclassified"] == {}

    def test_conditions_classify_by_a_file_of_operations(self, trail, tmp_path):
        """--operations classifies for conditions, and for the hint about an absent class, in every command with them."""
        (tmp_path / "operations.toml").write_text('[operations]\n"ünïcode.wörk" = "configuration"\n')
        words = ("operation_class=configuration", "--operations", tmp_path / "operations.toml")
        (event,) = open_trail(trail).query_events(operation_class=None)
        assert ids(run("query", trail, "-o", "jsonl", *words)) == [event.event_id]
        assert json.loads(run("stats", trail, "-o", "json", *words).out)["by_class"]["configuration"] == 1
        hint = run("query", trail, "operation_class=unclassified", *words[1:]).error_line
        assert hint.startswith("no event has operation_class 'unclassified'")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("[operations]\nsettle = 'udpate'", "'settle': expected one of create, read"),
            ("settle = 'update'", "under 'operations'"),
            ("[operations", "operations.toml"),
        ],
    )
    def test_invalid_file_of_operations_is_an_error(self, trail, tmp_path, content, reason):
        """An unknown class, a file of another form and one that is no TOML are refused before anything is read."""
        (tmp_path / "operations.toml").write_text(content)
        for command in ("stats", "report", "query", "tail", "users"):
            done = run(command, trail, "--operations", tmp_path / "operations.toml")
            assert (done.code, done.out) == (3, "")
            assert reason in done.error_line

    def test_stats_count_events_of_unknown_status(self, tmp_path):
        """The figures have the number of events whose status states nothing; the table shows it if there are any."""
        with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
            audit.record("document.move", "ann", status="archived")
        assert json.loads(run("stats", tmp_path / "audit.jsonl", "-o", "json").out)["unknown_status"] == 1
        assert re.search(r"^unknown status +1$", run("stats", tmp_path / "audit.jsonl").out, re.MULTILINE)
        assert "unknown status" not in run("stats", tmp_path / "audit.jsonl", "user_id=bob").out

    def test_users_table_ranks_by_total(self, trail):
        """Each user has a line with total, last activity, most common operation and success rate, the most active first."""
        lines = run("users", trail, "--utc").lines
        assert lines[0].split() == ["USER", "TOTAL", "LAST", "ACTIVITY", "MOST", "COMMON", "SUCCESS"]
        assert lines[1].split() == ["ann", "13", "2025-01-15T10:30:59.999Z", "STORE", "100.0%"]
        assert [line.split()[0] for line in lines[1:5]] == ["ann", "bob", "–", "carol"]
        assert len(run("users", trail, "-n", 2).lines) == 3

    def test_users_outputs_equal_get_user_statistics(self, trail):
        """The other outputs have the figures of get_user_statistics."""
        handler = AuditHandler(filename=trail, warm_start=True)
        rows = run("users", trail, "-o", "jsonl").events
        assert {row["user_id"] for row in rows} == {event.user_id for event in EVENTS if not event.kind}
        for row in rows:
            expected = handler.get_user_statistics(row["user_id"])
            assert row["total_operations"] == expected["total_operations"]
            assert row["success_rate"] == expected["success_rate"]
            assert row["most_common_operation"] == expected["most_common_operation"]
        document = json.loads(run("users", trail, "-o", "json").out)
        assert document["users"] == rows
        assert document["total_users"] == len(rows)
        sheet = list(csv.DictReader(io.StringIO(run("users", trail, "-o", "csv").out)))
        assert [row["user_id"] for row in sheet] == [safe_cell(row["user_id"] or "") for row in rows]
        handler.close()

    def test_no_events_are_a_valid_answer(self, trail):
        """Without events the exit code of stats and users is 0."""
        for words in (("stats",), ("users",), ("users", "-o", "csv"), ("users", "-o", "json")):
            assert run(*words, trail, "user_id=nobody").code == 0
        assert "'csv' is not one of 'text', 'json'" in run("stats", trail, "-o", "csv").error_line


class TestExport:
    """``export`` writes a file, completely or not at all."""

    @pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
    def test_export_has_the_events_of_query(self, trail, tmp_path, format):
        """The suffix or --format determines the format; the events are those of the conditions."""
        words = [trail, "user_id!=ann", "--since", "2025-01-15"]
        for options in (["--to", tmp_path / f"out.{format}"], ["--to", tmp_path / "out.txt", "--format", format]):
            done = run("export", *words, *options)
            assert (done.code, done.out) == (0, f"40 events in {options[1]}\n")
        exported = (tmp_path / f"out.{format}").read_text()
        shown = run("query", *words, "-o", format).out
        assert re.sub(r'"exported_at".*', "", exported) == re.sub(r'"exported_at".*', "", shown)
        assert (tmp_path / "out.txt").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("format", FORMATS)
    def test_export_in_the_format_of_another_system(self, trail, tmp_path, format):
        """The formats of other systems are named as any other, with one line for each event."""
        for options in (["--to", tmp_path / f"out.{format}"], ["--to", tmp_path / "out.txt", "--format", format]):
            assert run("export", trail, "user_id=ann", *options).code == 0
            lines = options[1].read_text().splitlines()
            assert lines == [to_line(event, format) for event in open_trail(trail).iter_events(user_id="ann")]

    def test_columns_and_cells_shape_the_table(self, trail, tmp_path):
        """--columns selects the columns of csv, and --cells how texts are written."""
        words = ["--columns", "user_id,metadata.source", "--cells", "text"]
        assert run("export", trail, "user_id=ann", "--to", tmp_path / "out.csv", *words).code == 0
        head, first, *_ = (tmp_path / "out.csv").read_text().splitlines()
        assert (head, first) == ("user_id,metadata.source", "'ann,'api")

    @pytest.mark.parametrize(
        ("to", "words", "reason"),
        [
            ("out.csv", ["--columns", "user"], "--columns: expected event_id, "),
            ("out.json", ["--columns", "user_id"], "columns, cells: expected the format csv, got 'json'"),
            ("out.csv", ["--columns", "entry_ids"], "--columns: a cell of 148726 characters needs rows of kind 'part'"),
        ],
    )
    def test_invalid_columns_are_a_usage_error(self, tmp_path, to, words, reason):
        """Columns that the export cannot have are a usage error, and no file is written."""
        logger = AuditLogger(filename=tmp_path / "audit.jsonl")
        logger.record("IMPORT", entry_ids=[f"entry_{number:06d}" for number in range(9_915)])
        logger.close()
        done = run("export", tmp_path / "audit.jsonl", "--to", tmp_path / to, *words)
        assert done.code == 2
        assert done.error_line.startswith(reason)
        assert not (tmp_path / to).exists()
        if to.endswith(".csv"):
            shown = run("query", tmp_path / "audit.jsonl", "-o", "csv", *words)
            assert (shown.code, shown.error_line) == (2, done.error_line)

    def test_existing_file_is_replaced_only_with_force(self, trail, tmp_path):
        """An existing file, or a dangling link, is an error and unchanged; --force replaces it."""
        place = tmp_path / "out.csv"
        place.write_text("mine")
        before = state_of(tmp_path)
        done = run("export", trail, "--to", place)
        assert done.code == 2
        assert (
            done.error_line
            == f"{place} already exists and was not changed: choose another name, or use --force to replace it"
        )
        assert state_of(tmp_path) == before
        (tmp_path / "link.csv").symlink_to("nowhere")
        assert run("export", trail, "--to", tmp_path / "link.csv").code == 2
        assert run("export", trail, "--to", place, "--force").code == 0
        assert place.read_text().startswith("event_id,")

    @pytest.mark.parametrize(
        ("to", "options"), [("out.xlsx", []), ("out", []), ("out.csv", ["--format", "xml"]), (".", [])]
    )
    def test_invalid_format_or_path_is_an_error(self, trail, tmp_path, to, options):
        """An unknown format or a folder is an error before anything is read or written."""
        before = state_of(tmp_path)
        done = run("export", trail, "--to", tmp_path / to, *options)
        assert done.code == 2
        assert "json" in done.error_line or "folder" in done.error_line or "already" in done.error_line
        assert state_of(tmp_path) == before

    def test_export_without_events_is_an_empty_file(self, trail, tmp_path):
        """Without events the file is empty, which is not an error: a nightly job has nights without events."""
        assert run("export", trail, "user_id=nobody", "--to", tmp_path / "none.jsonl").out.startswith("0 events in ")
        assert (tmp_path / "none.jsonl").read_bytes() == b""


class TestReport:
    """``report`` writes the compliance report."""

    def test_each_form_is_written_to_its_file(self, trail, tmp_path):
        """HTML, Markdown and JSON are written at once, each to its file; the month is in UTC."""
        options = [word for form in ("html", "markdown", "json") for word in (f"--{form}", tmp_path / f"r.{form}")]
        assert process("report", trail, "--month", "2025-01", *options).code == 0
        assert json.loads((tmp_path / "r.json").read_text())["summary"]["total_events"] == 53
        assert (tmp_path / "r.html").read_text().startswith("<!")
        assert (tmp_path / "r.markdown").read_text().startswith("#")

    def test_markdown_to_stdout_is_the_default(self, trail):
        """Without a form, Markdown is written to stdout; - names stdout for the other forms."""
        assert run("report", trail).out.startswith("#")
        assert json.loads(run("report", trail, "--json", "-", "--user", "ann").out)["user_id"] == "ann"

    def test_time_range_replaces_the_month(self, trail):
        """--since and --until select a time range; combined with --month they are an error."""
        found = json.loads(
            run("report", trail, "-S", "2025-01-15T10:30:05Z", "-U", "2025-01-15T10:30:10Z", "--json", "-").out
        )
        assert 0 < found["summary"]["total_events"] < 53
        assert run("report", trail, "-S", "1h", "--month", "2025-01").code == 2

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--month", "January"], "--month='January'"),
            (["user_id=ann"], "or those of one user with --user: leave out the conditions"),
            (["user_id!=ann"], "leave out the conditions"),
            (["--user", ""], "--user: expected a user, got an empty text"),
            (["-S", "2025-01-15", "-U", "2025-01-15"], "expected a time range that is not empty"),
            (["-o", "csv"], "csv"),
            (["-o", "json", "--html", "x.html"], "--output json cannot be combined with files"),
            (["--html", "x", "--json", "x"], "only one format can be written to x"),
            (["--html", "FOLDER", "--force"], "expected the path of a file, got a folder"),
            (["--html", "s3://bucket/report.html"], "expected a path on this machine, got a URL"),
            (["--anchor", "x"], "--anchor: expected --key as well"),
        ],
    )
    def test_wrong_usage_is_one_line(self, trail, tmp_path, words, message):
        """The line names the option and what it expected; nothing is written and nothing is recorded."""
        before = state_of(tmp_path)
        done = run("report", trail, *(tmp_path if word == "FOLDER" else word for word in words))
        assert (done.code, done.out) == (2, "")
        assert message in done.error_line
        assert state_of(tmp_path) == before

    @pytest.mark.parametrize(("output", "start"), [("text", "# Audit"), ("json", "{"), ("html", "<!DOCTYPE html>")])
    def test_output_chooses_the_form_on_stdout(self, trail, output, start):
        """``-o`` means the same as in every command."""
        assert run("report", trail, "-o", output).out.startswith(start)

    def test_report_of_a_month_compares_it_with_the_month_before(self, trail):
        """The command prints the section, with the reason where the trail does not cover the month before."""
        shown = run("report", trail, "--month", "2025-01").out
        assert "## 5. Since last month" in shown
        assert "Not compared with December 2024, which the source is not known to have whole:" in shown

    def test_file_of_operations_classifies_the_report(self, trail, tmp_path):
        """--operations extends the classes of a report by the entries of a file."""
        (tmp_path / "operations.yaml").write_text("operations:\n  ünïcode.wörk: export\n")
        words = ("report", trail, "--json", "-")
        without, with_file = (
            json.loads(run(*words, *more).out)["classes"]
            for more in ((), ("--operations", tmp_path / "operations.yaml"))
        )
        assert (without["unclassified"], with_file["unclassified"]) == (1, 0)

    def test_report_on_an_unknown_user_names_near_ones(self, trail):
        """A report on a user without events says that no event has this user, and names users near it."""
        shown = run("report", trail, "--user", "Ann").out
        assert "No event has this user." in shown
        assert "No event has user\\_id 'Ann'; near: 'ann' (13)." in shown

    def test_existing_report_is_replaced_only_with_force(self, trail, tmp_path):
        """An existing file is unchanged unless --force replaces it."""
        (tmp_path / "r.md").write_text("mine")
        assert run("report", trail, "--markdown", tmp_path / "r.md").code == 2
        assert (tmp_path / "r.md").read_text() == "mine"
        assert run("report", trail, "--markdown", tmp_path / "r.md", "--force").code == 0
        assert (tmp_path / "r.md").read_text() != "mine"


class TestRecord:
    """With ``--record``, reading is recorded in the trail that is read."""

    def test_reading_is_recorded(self, trail):
        """An event of kind trail with user, command and conditions is recorded before events are shown."""
        done = run("query", trail, "user_id=ann", "operation~^S", "-S", "2025-01-15", "--record", "-o", "jsonl")
        assert len(done.events) == 5
        opened, read, closed = run("query", trail, "--all", "-n", 3, "-o", "jsonl").events
        assert [event["operation"] for event in (opened, read, closed)] == ["opened", "read", "closed"]
        assert read["kind"] == "trail"
        assert read["metadata"] == {
            "command": "query",
            "os_user": read["metadata"]["os_user"],
            "uid": os.getuid(),
            "pid": os.getpid(),
            "since": "2025-01-15T00:00:00.000000Z",
            "conditions": ["user_id=ann", "operation~^S"],
        }
        assert ids(run("query", trail, "-o", "jsonl")) == IDS

    def test_every_command_records_in_every_trail(self, trail, tmp_path):
        """Every command records in each of several trails; a sudo user is named."""
        shutil.copy(GOLDEN, tmp_path / "other.jsonl")
        run("stats", trail, tmp_path / "other.jsonl", "--record", SUDO_USER="carol")
        run("export", trail, "--to", tmp_path / "x.csv", "--record")
        run("users", trail, "--record")
        run("report", trail, "--record")
        run("tail", trail, "--record")
        for path, expected in (
            (trail, ["stats", "export", "users", "report", "tail"]),
            (tmp_path / "other.jsonl", ["stats"]),
        ):
            trail_events = run("query", path, "kind=trail", "operation=read", "-o", "jsonl").events
            assert [event["metadata"]["command"] for event in trail_events] == expected
            assert trail_events[0]["metadata"]["sudo_user"] == "carol"

    def test_secret_conditions_are_redacted(self, trail):
        """Recorded conditions are redacted as any event is."""
        run("query", trail, "metadata.header=Authorization: Bearer abcdefghijklmnop.qrstuvwxyz0123456789", "--record")
        assert "qrstuvwxyz0123456789" not in trail.read_text()
        assert "metadata.header=" in trail.read_text()

    @pytest.mark.parametrize("word", ["-", "audit*.jsonl", "nothing.jsonl", ".", "audit.jsonl.20250115T103100.000000Z"])
    def test_record_without_an_active_file_reads_nothing(self, tmp_path, trail, monkeypatch, word):
        """For stdin, patterns and missing files --record is an error: no output, no new file."""
        monkeypatch.chdir(tmp_path)
        shutil.copy(GOLDEN, tmp_path / "audit.jsonl.20250115T103100.000000Z")
        before = state_of(tmp_path)
        done = run("query", word, "--record", input=GOLDEN.read_bytes())
        assert (done.code, done.out) == (2, "")
        assert "--record: expected the active file" in done.error_line
        assert state_of(tmp_path) == before

    def test_record_does_not_roll_over(self, trail, tmp_path):
        """A record only appends: the application decides about rollovers."""
        with trail.open("ab") as file:
            # Larger than the default maxBytes, as a sparse file.
            file.truncate(60_000_000)
            file.seek(0, 2)
            file.write(b"\n")
        run("query", trail, "-n", 0, "--record")
        assert os.listdir(tmp_path) == ["audit.jsonl"]


class TestErrors:
    """An error is one line on stderr and an exit code, and changes nothing."""

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["query", "TRAIL", "user=ann"], 2, "Did you mean 'user_id'?"),
            (["query", "TRAIL", "--sinse", "1h"], 2, "--since"),
            (["qery", "TRAIL"], 2, "Did you mean 'query'"),
            (["query", "TRAIL", "-S", "yesteday"], 2, "Did you mean 'yesterday'?"),
            (["query", "TRAIL", "-S", "1h", "-U", "2h"], 2, "must not be later than"),
            (["query", "TRAIL", "-n", "-1"], 2, "--lines"),
            (["query", "TRAIL", "-n", "x"], 2, "--lines"),
            (["query", "TRAIL", "-o", "xml"], 2, "jsonl"),
            (["query", "TRAIL", "user_id>ann"], 2, "Did you mean '>='?"),
            (["query", "TRAIL", "status=BAD"], 2, "expected one of SUCCESS, FAILURE, PARTIAL"),
            (["query", "user_id=ann"], 2, "expected a trail"),
            (["query"], 2, "expected a trail"),
            (["tail", "TRAIL", "-f", "-o", "json"], 2, "use --output jsonl"),
            (["monitor", "--rules", "FOLDER/nothing.toml", "TRAIL", "-f", "-o", "json"], 2, "use --output jsonl"),
            (["tail", "TRAIL", "-f", "-U", "now"], 2, "--until"),
            (["export", "TRAIL"], 2, "--to"),
            (["query", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["query", "FOLDER/nothing/audit.jsonl"], 3, "FOLDER/nothing"),
            (["tail", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["stats", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["users", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["export", "TRAIL.nothing", "--to", "FOLDER/x.csv"], 3, "TRAIL.nothing"),
            (["report", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["doctor", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["monitor", "--rules", "FOLDER/nothing.toml", "TRAIL"], 3, "nothing.toml"),
            (["catalogue", "json", "--trail", "TRAIL.nothing"], 3, "TRAIL.nothing"),
            (["catalogue", "FOLDER/nothing.py"], 3, "nothing.py"),
            (["catalogue"], 2, "expected a package"),
            (["catalogue", "json", "user_id=ann"], 2, "--trail"),
            (["catalogue", "json", "--since", "7d"], 2, "--trail"),
            (["catalogue", "json", "--trail", "TRAIL", "user=ann"], 2, "Did you mean 'user_id'?"),
            (["doctor", "-"], 2, "expected the path of a trail"),
            (["export", "TRAIL", "--to", "TRAIL/x.csv"], 3, "TRAIL"),
            (["demo", "FOLDER"], 2, "already exists"),
            (["query", "TRAIL", "user_id=nobody"], 1, "no event has user_id 'nobody'"),
            (["tail", "TRAIL", "user_id=nobody"], 1, "no event has user_id 'nobody'"),
        ],
    )  # fmt: skip
    def test_error_is_one_line_and_changes_nothing(self, trail, tmp_path, words, code, message):
        """Each error describes the cause and a remedy in one line, and nothing on disk has changed."""
        before = state_of(tmp_path)
        done = run(*(word.replace("TRAIL", str(trail)).replace("FOLDER", str(tmp_path)) for word in words))
        assert (done.code, done.out) == (code, "")
        filled = message.replace("TRAIL", str(trail)).replace("FOLDER", str(tmp_path))
        assert filled in done.error_line or message in done.error_line
        assert state_of(tmp_path) == before

    def test_empty_trail_is_not_an_error(self, tmp_path):
        """A trail without events yields 1 from query, statistics of zero events, and a report."""
        (tmp_path / "audit.jsonl").touch()
        assert run("query", tmp_path / "audit.jsonl").code == 1
        assert json.loads(run("stats", tmp_path / "audit.jsonl", "-o", "json").out)["total_events"] == 0
        assert run("report", tmp_path / "audit.jsonl").code == 0

    def test_problems_are_reported_and_strict_exits_with_4(self, trail, tmp_path):
        """Unreadable lines are counted on stderr and events are shown all the same; --strict exits with 4."""
        with trail.open("ab") as file:
            file.write(b"this is no event\n")
        done = run("query", trail, "-o", "jsonl")
        assert (done.code, ids(done)) == (0, IDS)
        assert (
            done.error_line
            == f"not everything could be read: 1 foreign; run structlog-audit doctor {trail} for details"
        )
        done = run("query", "-", "-o", "jsonl", input=trail.read_bytes())
        assert done.error_line == "not everything could be read: 1 foreign"
        for words in (["query"], ["tail"], ["stats"], ["users"], ["report"], ["export", "--to", tmp_path / "x.csv"]):
            done = run(words[0], trail, *words[1:], "--strict")
            assert done.code == 4, words
            assert done.out
            assert "foreign" in done.error_line
        assert run("query", trail, "user_id=nobody", "--strict").code == 4

    @pytest.mark.parametrize("command", ["query", "stats", "report", "users"])
    def test_missing_events_with_strict_exit_with_4(self, whole_trail, command):
        """With --strict, a hole in the sequence numbers exits with 4; an open end and a running writer do not."""
        assert run(command, whole_trail, "--strict").code == 0
        lines = whole_trail.read_bytes().splitlines(keepends=True)
        whole_trail.write_bytes(b"".join([*lines[:2], *lines[3:]]))
        assert run(command, whole_trail).code == 0
        done = run(command, whole_trail, "--strict")
        assert done.code == 4
        assert "Incomplete: 1 event missing" in done.out + done.err

    @pytest.mark.parametrize("command", ["stats", "report"])
    def test_strict_exits_with_4_for_a_range_that_is_not_shown_to_be_complete(self, whole_trail, command):
        """With an end, --strict requires the verdict to be complete."""
        assert run(command, whole_trail, "--until", "2100-01-01").code == 0
        assert run(command, whole_trail, "--until", "2100-01-01", "--strict").code == 4

    def test_stats_state_verdict_and_source(self, whole_trail):
        """The statistics have the verdict, its reasons, and the source, in the table and in JSON."""
        document = json.loads(run("stats", whole_trail, "-o", "json").out)
        assert document["completeness"]["verdict"] == "unknown"
        assert document["completeness"]["source"]["paths"] == [str(whole_trail)]
        assert "complete_since" not in document
        shown = run("stats", whole_trail).out
        assert "Nothing shows whether events followed the last one" in shown
        assert f"{whole_trail} (1 segment)" in shown

    def test_stats_of_a_user_who_never_occurs_are_unknown(self, whole_trail):
        """A user without any event in the trail is named; one without events in the range is not."""
        shown = run("stats", whole_trail, "user_id=nobody").out
        assert "No event of the source has the user nobody" in shown
        assert "No event of the source" not in run("stats", whole_trail, "user_id=ann", "operation=NONE").out

    @pytest.mark.parametrize("name", ["typer", "rich"])
    def test_missing_extra_is_reported_in_one_line(self, name):
        """Without typer or rich the command names the extra to install, without a traceback."""
        code = f"import sys; sys.modules[{name!r}] = None; from structlog_audit.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == f"structlog-audit: the command line needs {name}: pip install 'structlog-audit[cli]'\n"

    def test_unexpected_exception_is_a_traceback(self, trail, monkeypatch):
        """An exception of an unknown kind is not hidden: it is a bug to fix."""
        monkeypatch.setattr(output, "put_events", lambda *given, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("query", trail)


class TestProcesses:
    """The command as a process, in pipes."""

    WORDS: ClassVar = [
        ["query", "TRAIL"],
        ["query", "TRAIL", "-o", "json"],
        ["query", "TRAIL", "-o", "jsonl"],
        ["query", "TRAIL", "-o", "csv"],
        ["query", "TRAIL", "-r"],
        ["tail", "TRAIL"],
        ["tail", "-f", "TRAIL", "-n", "100000"],
        ["stats", "TRAIL"],
        ["users", "TRAIL"],
        ["report", "TRAIL"],
        ["doctor", "TRAIL"],
        ["demo"],
        ["--help"],
    ]

    @pytest.mark.parametrize("words", WORDS, ids=" ".join)
    def test_closed_pipe_is_not_an_error(self, tmp_path, words):
        """When the reader is gone, stderr is empty, and long output ends with 141 as any program's."""
        trail = tmp_path / "audit.jsonl"
        trail.write_bytes(trail_lines(2_000))
        with subprocess.Popen(
            [*PROGRAM, *(str(trail) if word == "TRAIL" else word for word in words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(TMPDIR=str(tmp_path), COLUMNS="60"),
        ) as done:  # fmt: skip
            assert done.stdout.readline()
            done.stdout.close()
            err = done.stderr.read().decode()
            code = done.wait(timeout=60)
        assert err == ""
        assert code == 141 if words[0] in ("query", "tail") and words != ["tail", "TRAIL"] else code in (0, 1, 4, 141)

    def test_stdout_takes_one_document(self, trail):
        """An export to stdout and two reports on stdout are usage errors, and nothing is written."""
        for words in (["export", trail, "--to", "-"], ["report", trail, "--html", "-", "--json", "-"]):
            done = run(*words)
            assert (done.out, done.code) == ("", 2)
            assert " -:" in done.error_line
        assert not os.path.lexists("-")

    @pytest.mark.parametrize(("closed", "words"), [(0, ["query", "-"]), (1, ["query"]), (1, ["stats"]), (2, ["query"])])
    def test_closed_stream_is_an_empty_stream(self, trail, closed, words):
        """A closed standard stream is an empty one, not an error."""
        words = words if words[-1] == "-" else [*words, str(trail)]
        done = process(*words, preexec_fn=lambda: os.close(closed), **({"stdin": None} if closed == 0 else {}))
        assert (done.code, done.err) == (1 if closed == 0 else 0, "")

    def test_interrupt_exits_with_130(self, trail):
        """Ctrl-C ends following with 130 and without a message."""
        with subprocess.Popen(
            [*PROGRAM, "tail", "-f", str(trail)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=without_coverage(environment()),
        ) as done:
            for _ in range(11):
                done.stdout.readline()
            done.send_signal(signal.SIGINT)
            out, err = done.communicate(timeout=60)
        assert (done.returncode, err, out) == (130, b"", b"")

    def test_following_ends_when_the_reader_is_gone(self, trail):
        """tail -f notices that its reader is gone even if no event arrives."""
        with subprocess.Popen(
            [*PROGRAM, "tail", "-f", str(trail), "-n", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as done:
            done.stdout.readline()
            done.stdout.close()
            assert done.wait(timeout=60) == 141
            assert done.stderr.read() == b""

    def test_help_imports_no_work_of_a_command(self):
        """--help imports no module that only the work of a command needs, so that it is quick."""
        code = textwrap.dedent("""
            import sys
            import structlog_audit
            before = set(sys.modules)
            import structlog_audit.cli.app
            print(*(name for name in sys.modules.keys() - before if name.startswith("structlog_audit")))
        """)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        shared = {"app", "choices", "completion", "exit_codes", "options", "output_files", "terminal"}
        commands = {"commands", *(f"commands.{name}" for name in COMMANDS)}
        needed = {f"structlog_audit.cli.{name}" for name in shared | commands}
        assert set(done.stdout.split()) == {"structlog_audit.cli", *needed}

    def test_every_module_of_commands_is_listed(self):
        """Each command is a separate module with a function of that name and an example."""
        modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
        assert modules == set(COMMANDS) == set(NAMES)

    def test_shell_completion_knows_the_commands(self):
        """typer's completion completes the names of commands."""
        words = {"COMP_WORDS": "structlog-audit que", "COMP_CWORD": "1"}
        done = process(env=environment(_STRUCTLOG_AUDIT_COMPLETE="complete_bash", **words))
        assert done.out.split() == ["query"]


SEALED = ("seal", "rotate_key", "verify", "prove", "verify_proof")
"""The commands whose examples need a key, a sealed trail and a proof."""


def prepare_seal(folder):
    """Seal the trail in *folder* and prove one of its lines."""
    event_id = "evt_0197f3a0c1d27d1e9b0c5d8e00000000"
    trail = folder / "logs" / "audit.jsonl"
    with trail.open("a") as file:
        file.write(f'{{"event_id":"{event_id}","timestamp":"2025-07-10T10:00:00.000000Z","operation":"STORE"}}\n')
    made = run("keygen", folder / "audit.pem", "--origin", "audit.example/shop/web1")
    (folder / "audit.vkey").write_text(made.out)
    run("seal", trail, "--key", folder / "audit.pem", "--origin", "audit.example/shop/web1")
    proven = run("prove", trail, event_id, "--line", folder / "line.json")
    (folder / "event.tlog-proof").write_text(proven.out)
    (folder / "shipped.log").write_bytes((folder / "logs" / "audit.jsonl.seal" / "checkpoint").read_bytes())


class TestHelp:
    """``--help`` helps."""

    @pytest.mark.parametrize("name", NAMES)
    def test_examples_of_the_help_run(self, name, tmp_path, monkeypatch):
        """The help of every command ends with examples, each of which runs."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "logs").mkdir(mode=0o700)
        with AuditLogger(filename=tmp_path / "logs" / "audit.jsonl") as logger:
            logger.record("EXPORT", "ann", error_message="no")
            logger.record("STORE", "bob")
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "audit": {"()": "structlog_audit.AuditHandler", "filename": str(tmp_path / "logs" / "audit.jsonl")}
            },
            "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
        }
        (tmp_path / "logging.json").write_text(json.dumps(config))
        source = "from structlog_audit import audited\naudited('EXPORT'), audited('STORE')\n"
        (tmp_path / "myapp.py").write_text(source)
        SubjectVault(tmp_path / "logs" / "audit.vault", create=True).close()
        (tmp_path / "rules.toml").write_text('[[rules]]\nname = "failures"\nmore_than = 0\nwithin = "1h"\n')
        fields = {"content_type": 1, "object_pk": "1", "action": 0, "timestamp": "2025-01-01T00:00:00Z", "changes": {}}
        rows = [
            {"model": "contenttypes.contenttype", "pk": 1, "fields": {"app_label": "shop", "model": "order"}},
            {"model": "auditlog.logentry", "pk": 1, "fields": fields},
        ]
        (tmp_path / "auditlog.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        write_trail(tmp_path / "old", (100, line_of(1)), (200, line_of(2)), (300, line_of(3)))
        compact(tmp_path / "old" / "audit.jsonl", tmp_path / "archive")
        if name in SEALED:
            prepare_seal(tmp_path)
        # The system tests serve the site; here Datasette need not be installed.
        monkeypatch.setattr("structlog_audit.cli.commands.explore._serve", lambda path, overview: None)
        monkeypatch.setattr("structlog_audit.cli.commands.explore.find_spec", lambda name: True)
        shown = run(name.replace("_", "-"), "--help")
        _, examples = shown.out.split("Examples:\n")
        lines = examples.splitlines()
        assert 1 <= len(lines) <= 2, shown.out
        for line in lines:
            program, *words = line.split()
            assert program == "structlog-audit"
            done = run(*words)
            assert done.code == (1 if name == "monitor" else 0), done.err
            assert done.out or name == "report"

    @pytest.mark.parametrize("name", NAMES)
    def test_help_fits_a_narrow_terminal(self, name):
        """At 60 columns no line but the example is wider."""
        shown = process(name.replace("_", "-"), "-h", env=environment(COLUMNS="60"))
        assert max(len(line) for line in shown.lines if not line.startswith("    structlog-audit")) <= 60

    def test_every_command_is_listed_without_a_command(self):
        """Without a command the help is shown, and lists each command with its first sentence."""
        done = run()
        assert done.code == 2
        for name in NAMES:
            assert re.search(rf"^  {name.replace('_', '-')} +[A-Z].*\.$", done.out, re.MULTILINE), done.out
        assert run("--help").out == done.out
        assert run("--version").out.startswith("structlog-audit 0.")


def test_demo_runs_three_queries(tmp_path):
    """demo writes a trail and runs three queries on it, in a given folder or in a temporary one."""
    done = run("demo", tmp_path / "given")
    assert done.code == 0
    assert "What did ann delete in the last hour?" in done.out
    assert re.search(r"FORGET +SUCCESS +ann +entries=entry_2", done.out)
    assert re.search(r'IMPORT +PARTIAL +bob +error="one of three', done.out)
    assert re.search(r"^bob +3 ", done.out, re.MULTILINE)
    assert len(run("query", tmp_path / "given" / "audit.jsonl", "-o", "jsonl").lines) == 6
    shown = re.findall(r"^\$ structlog-audit (.*)$", done.out, re.MULTILINE)
    assert len(shown) == 3
    own = process("demo", env=environment(TMPDIR=str(tmp_path)))
    assert len(list(tmp_path.glob("audit-demo-*/audit.jsonl"))) == 1, own.err


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux reports the peak memory of a process")
def test_long_trail_needs_little_memory(tmp_path):
    """Commands read 45 MB with less than 10 MB of memory beyond that for a short trail."""
    (tmp_path / "audit.jsonl").write_bytes(trail_lines(150_000))
    (tmp_path / "short.jsonl").write_bytes(trail_lines(1))
    code = textwrap.dedent(r"""
        import re, sys
        from structlog_audit.cli import main
        from structlog_audit import catalogue, monitoring
        from structlog_audit.cli import catalogue_markdown, output, reading, tables
        most = lambda: int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
        words = sys.argv[1:]
        sys.argv[1:] = ["stats", "short.jsonl"]
        try:
            main()
        except SystemExit:
            pass
        sys.argv[1:] = words
        before = most()
        try:
            main()
        finally:
            sys.stderr.write(str(most() - before))
    """)
    rule = {"name": "many", "more_than": 1_000, "within": "1d"}
    (tmp_path / "rules.json").write_text(json.dumps([rule]))
    for words in (
        ["query", "-o", "jsonl", "-n", "3"],
        ["stats"],
        ["export", "--to", str(tmp_path / "x.jsonl")],
        ["monitor", "--rules", str(tmp_path / "rules.json")],
        ["catalogue", "structlog_audit._version", "--trail"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, str(tmp_path / "audit.jsonl")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == (words[0] in ("monitor", "catalogue"))
        # In kB.
        assert int(done.stderr) < 10_000, words
