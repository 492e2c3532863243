"""``doctor``: what it finds, what it says, and that it changes nothing."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import GOLDEN, run

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, get_audit_logger, open_trail
from structlog_audit._failures import DeliveryError
from structlog_audit.cli.doctor import config_loading as loading
from structlog_audit.cli.doctor import dry_run as dryrun
from structlog_audit.cli.doctor import filesystem as places
from structlog_audit.cli.doctor import host as machine
from structlog_audit.cli.doctor import trail_history as history
from structlog_audit.recording.health_checks import RE_ENTRANCY_GUARD

README = Path(__file__).parents[2] / "README.md"
ALWAYS = {"re-entrancy"} if sys.version_info >= RE_ENTRANCY_GUARD else set()
OF_PLACES = {"container", "disk", "inodes", "fleeting", "clock", "file-size", "remote"}
"""What the machine that the tests run on may have, or not."""


def config(folder, **changes):
    """A good configuration, with changes by the path of a member: ``handlers__audit__max_pending=0``; None takes one out."""
    made = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "file": {
                "class": "structlog_audit.AuditFileHandler",
                "filename": str(folder / "audit.jsonl"),
                "retention": {"max_age_days": 400},
            },
            "audit": {"class": "structlog_audit.AuditHandler", "target": "file"},
        },
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    }
    for path, value in changes.items():
        *names, last = path.split("__")
        at = made
        for name in names:
            at = at.setdefault(name, {})
        if value is None:
            del at[last]
        else:
            at[last] = None if value == "None" else value
    return made


def state_of(folder):
    """Everything in *folder*: names, sizes, times, modes."""
    return {
        path: (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def found(*words):
    """The findings of a run, by their codes, without what the machine of the test has."""
    document = json.loads(run("doctor", *words, "-o", "json").out)
    return {f["code"]: f for f in document["findings"] if f["code"] not in OF_PLACES | ALWAYS}


def about(folder, made, *words):
    """What is found about a configuration."""
    path = folder / "logging.json"
    path.write_text(json.dumps(made))
    return found("--config", path, *words)


@pytest.fixture
def folder(tmp_path):
    """A folder as a trail's should be."""
    made = tmp_path / "logs"
    made.mkdir(mode=0o700)
    return made


def test_a_good_configuration_has_nothing(folder, tmp_path):
    """Nothing is found in a configuration that is good, and nothing is made of what it describes."""
    assert about(tmp_path, config(folder)) == {}
    assert list(folder.iterdir()) == []


def test_the_quickstart_is_good(tmp_path, monkeypatch):
    """The README's configuration has no error; its relative path and its missing bound are told."""
    code = re.search(r"dictConfig\(\n(.*?)\n\)\n", README.read_text(), re.DOTALL)[1]
    (tmp_path / "settings.py").write_text(f"LOGGING = {code.strip()}\n")
    monkeypatch.chdir(tmp_path)
    assert set(found("--config", "settings.py")) == {"relative-path", "unbounded"}
    assert os.listdir(tmp_path) == ["settings.py"]


ROTATING = {"class": "logging.handlers.RotatingFileHandler", "backupCount": 3}
CONSOLE = {"class": "logging.StreamHandler"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loggers__audit__level": "WARNING"}, {"level": "error"}),
        ({"loggers__audit__level": None}, {"level": "error"}),
        ({"loggers__audit__level": None, "root": {"level": "INFO"}}, {}),
        ({"handlers__audit__level": "ERROR"}, {"handler-level": "error"}),
        ({"handlers__file__level": "ERROR"}, {"target-level": "error"}),
        ({"filters": {"f": {}}, "loggers__audit__filters": ["f"]}, {"logger-filter": "warning"}),
        ({"filters": {"f": {}}, "handlers__audit__filters": ["f"]}, {"handler-filter": "warning"}),
        ({"loggers__audit__handlers": []}, {"detached": "error"}),
        ({"loggers__audit.billing": {"propagate": False}}, {"propagate": "error"}),
        ({"disable_existing_loggers": True}, {"existing-loggers": "note"}),
        ({"disable_existing_loggers": None}, {"existing-loggers": "note"}),
        (
            {"disable_existing_loggers": True, "loggers": {}, "root": {"handlers": ["audit"], "level": "INFO"}},
            {"existing-loggers": "warning"},
        ),
        ({"handlers": {}, "loggers": {}}, {"no-audit-handler": "error"}),
        ({"handlers__audit__max_event_bytes": 40_000}, {"long-lines": "warning"}),
        ({"handlers__audit__max_pending": 0}, {"no-pending": "warning"}),
        ({"handlers__audit__redactor": {}, "handlers__audit__on_error": "raise"}, {}),
        ({"handlers__audit__redactor": "None"}, {"unredacted": "note"}),
        ({"handlers__audit__target": None, "handlers__file": None}, {"memory-only": "warning"}),
        ({"handlers__file__maxBytes": 60_000}, {"small-segments": "warning"}),
        ({"handlers__file__maxBytes": 0}, {"one-segment": "note"}),
        ({"handlers__file__retention": None}, {"unbounded": "note"}),
        ({"handlers__file__durability": "fsync"}, {"fsync": "note"}),
        ({"handlers__file__filename": "FOLDER/audit"}, {"shipper-glob": "warning"}),
        ({"handlers__file__filename": "FOLDER/audit.1"}, {"shipper-glob": "warning"}),
        ({"handlers__file__filename": "relative.jsonl"}, {"relative-path": "warning"}),
        (
            {"handlers__console": CONSOLE, "loggers__audit__propagate": True, "root": {"handlers": ["console"]}},
            {"clear-values": "note"},
        ),
        ({"handlers__console": CONSOLE, "loggers__audit__handlers": ["audit", "console"]}, {"clear-values": "note"}),
        ({"loggers__audit__handlers": ["audit", "file"]}, {"twice": "error"}),
        (
            {
                "handlers__other": {**ROTATING, "filename": "FOLDER/../logs/audit.jsonl"},
                "root": {"handlers": ["other"]},
            },
            {"shared-file": "error"},
        ),
        (
            {"handlers__file": {**ROTATING, "filename": "FOLDER/audit.log"}},
            {"several-processes": "warning", "deletes": "warning", "lesser-target": "warning"},
        ),
        (
            {"handlers__file": {"class": "logging.FileHandler", "filename": "FOLDER/audit.log", "mode": "w"}},
            {"truncates": "error", "lesser-target": "warning"},
        ),
        (
            {
                "loggers": {"audit": {"handlers": ["file"], "level": "INFO", "propagate": False}},
                "handlers__audit": None,
            },
            {"no-audit-handler": "error", "bare-file": "warning"},
        ),
        ({"loggers": {"trail": {"handlers": ["audit"], "level": "INFO", "propagate": False}}}, {"logger-name": "note"}),
        ({"version": 2}, {"configuration": "error"}),
        ({"handlers__audit__maxevents": 5}, {"configuration": "error"}),
        ({"handlers__audit__class": "no.such.Handler"}, {"configuration": "error"}),
        ({"handlers__audit__target": "nobody"}, {"configuration": "error"}),
        ({"loggers__audit__handlers": ["nobody"]}, {"configuration": "error"}),
        ({"formatters": {"plain": {}}, "handlers__file__formatter": "plain"}, {"configuration": "error"}),
        (
            {
                "handlers__audit": {"()": "structlog_audit.AuditHandler", "filename": "FOLDER/audit.jsonl"},
                "handlers__file": None,
            },
            {"unbounded": "note"},
        ),
        (
            {
                "handlers__audit": {
                    "()": "structlog_audit.AuditHandler",
                    "target": {
                        "class": "structlog_audit.AuditFileHandler",
                        "filename": "FOLDER/x.jsonl",
                        "backupCount": 5,
                    },
                },
                "handlers__file": None,
            },
            {},
        ),
        (
            {
                "handlers__s": {
                    "class": "logging.handlers.SysLogHandler",
                    "address": ["127.0.0.1", 9],
                    "socktype": "ext://socket.SOCK_STREAM",
                },
                "root": {"handlers": ["s"]},
            },
            {"not-tried": "note"},
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_is_found(folder, tmp_path, monkeypatch, changes, expected):
    """Each mistake is found, with how bad it is and what to do, and nothing else is; nothing is made or changed."""
    given = json.loads(json.dumps(config(folder, **changes)).replace("FOLDER", str(folder)))
    findings = about(tmp_path, given)
    assert tried(tmp_path, monkeypatch) == set(expected)
    assert {code: finding["severity"] for code, finding in findings.items()} == expected
    assert all(finding["message"] and finding["fix"] for finding in findings.values())
    assert list(folder.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["dry", "logging.json", "logs"]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="dictConfig configures a QueueHandler with its handlers since 3.12"
)
def test_a_queue_is_found(folder, tmp_path):
    """A QueueHandler before the audit handler is told of."""
    queue = {"class": "logging.handlers.QueueHandler", "handlers": ["audit"]}
    given = config(folder, handlers__queue=queue, loggers__audit__handlers=["queue"])
    assert "queue" in about(tmp_path, given)


def test_the_trail_of_a_configuration_is_looked_at_and_left(folder, tmp_path):
    """The trail that a configuration names is examined too, and neither opened for writing nor changed."""
    shutil.copy(GOLDEN, folder / "audit.jsonl")
    (folder / "audit.jsonl").chmod(0o644)
    with (folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"event_id":"evt_torn')
    before = state_of(folder)
    findings = about(tmp_path, config(folder, handlers__audit__warm_start=True))
    assert findings["permissions"]["where"] == str(folder / "audit.jsonl")
    assert state_of(folder) == before


SETTINGS = """
LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"audit": {"class": "structlog_audit.AuditHandler"}},
           "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}}}
OTHER = {"version": 2}
def made(): return LOGGING
class Settings: LOGGING = LOGGING
print("what is printed is no answer")
"""


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        (
            "logging.yaml",
            "version: 1\nhandlers: {audit: {class: structlog_audit.AuditHandler}}\nroot: {handlers: [audit], level: INFO}",
            "logging.yaml",
        ),
        ("settings.py", SETTINGS, "settings.py"),
        ("settings.py", SETTINGS, "settings.py:LOGGING"),
        ("settings.py", SETTINGS, "settings:LOGGING"),
        ("settings.py", SETTINGS, "settings:made"),
        ("settings.py", SETTINGS, "settings:Settings.LOGGING"),
    ],
)
def test_a_configuration_comes_from_many_places(tmp_path, monkeypatch, name, text, given):
    """JSON, YAML, a Python file, or an attribute of a module."""
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert loading.loaded(given)["version"] == 1
    assert "memory-only" in found("--config", given)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "text", "given", "said"),
    [
        ("x", "", "nothing.json", "nothing.json"),
        ("x.json", "{", "x.json", "can't be loaded: JSONDecodeError"),
        ("x.json", "[]", "x.json", "is a list and no mapping"),
        ("x.yaml", "a: [", "x.yaml", "can't be loaded"),
        ("x.ini", "", "x.ini", "is for fileConfig"),
        ("x.toml", "", "x.toml", "Give a JSON, YAML or Python file"),
        ("x.py", "A = {'version': 1}\nB = {'version': 1}", "x.py", "(A, B): name it, as x.py:NAME"),
        ("x.py", "", "x.py", "has no one configuration (none)"),
        ("x.py", "", "x:LOGGING", "there is no 'LOGGING' in 'x'"),
        ("x.py", "", "y:LOGGING", "No module named 'y'"),
        ("x.py", "1/0", "x.py", "ZeroDivisionError"),
        ("x.py", "import os; os._exit(7)", "x.py", "ended the process that loaded it (7)"),
        ("x.py", "raise SystemExit('goodbye')", "x.py", "goodbye"),
    ],
)
def test_what_is_no_configuration_is_an_error(tmp_path, monkeypatch, name, text, given, said):
    """What can't be loaded is an error in one line, and exit code 3."""
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    if "ystem" not in text and "exit" not in text:
        assert dryrun.examine(given, str(tmp_path))["error"].startswith(given)
    done = run("doctor", "--config", given)
    assert (done.code, done.out) == (3, "")
    assert said in done.error_line


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
    """What a configuration imports is forgotten again; and what may not write must not be asked to count coverage."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)
    before = set(sys.modules)
    yield
    for name in {"settings", "x", "yaml"} & (set(sys.modules) - before):
        del sys.modules[name]


def test_yaml_needs_pyyaml(tmp_path, monkeypatch):
    """Without PyYAML a YAML file is answered with what to install."""
    (tmp_path / "yaml.py").write_text("raise ImportError('not here')")
    (tmp_path / "logging.yml").write_text("version: 1")
    monkeypatch.chdir(tmp_path)
    assert "pip install pyyaml" in run("doctor", "--config", "logging.yml").error_line


@pytest.mark.parametrize(
    "deed",
    [
        "open('made', 'w')",
        "open('there', 'a')",
        "open('there', 'r+')",
        "__import__('os').open('made', 64 | 1)",
        "os.mkdir('made')",
        "os.rename('there', 'gone')",
        "os.remove('there')",
        "os.truncate('there', 0)",
        "os.symlink('there', 'made')",
        "os.chmod('there', 0)",
        "shutil.copy('there', 'made')",
        "os.system('touch made')",
        "subprocess.run(['touch', 'made'])",
        "os.fork()",
        "socket.create_connection(('127.0.0.1', 9))",
        "pathlib.Path('made').write_text('x')",
        "sqlite3.connect('made')",
    ],
)
def test_a_configuration_changes_nothing(tmp_path, monkeypatch, deed):
    """Whatever a configuration does when it is loaded, it is refused, and that is said."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "settings.py").write_text(
        f"import os, pathlib, shutil, socket, sqlite3, subprocess\n{deed}\nLOGGING = {{'version': 1}}"
    )
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path)
    done = run("doctor", "--config", "settings.py")
    assert done.code == 3
    assert "Refused" in done.error_line
    assert state_of(tmp_path) == before


@pytest.mark.parametrize(
    ("event", "arguments", "allowed"),
    [
        ("open", ("/elsewhere/x", "w", os.O_WRONLY), False),
        ("open", ("/elsewhere/x", "r", os.O_RDONLY), True),
        ("open", (b"/elsewhere/x", None, os.O_RDWR | os.O_CREAT), False),
        ("open", (7, "w", os.O_WRONLY), True),
        ("open", ("/inside/x", "w", os.O_WRONLY), True),
        ("open", ("/inside/../x", "w", os.O_WRONLY), False),
        ("open", (os.devnull, "w", os.O_WRONLY), True),
        ("os.remove", ("/elsewhere/x", -1), False),
        ("os.mkdir", ("/inside/x", 0o777, -1), True),
        ("socket.connect", (None, ("127.0.0.1", 9)), False),
        ("os.fork", (), False),
        ("import", ("json",), True),
    ],
)
def test_what_is_refused(event, arguments, allowed):
    """Writing and changing is refused outside of the folder, connecting and starting processes altogether."""
    if allowed:
        dryrun.refuse("/inside/", event, arguments)
    else:
        with pytest.raises(dryrun.Refused):
            dryrun.refuse("/inside/", event, arguments)


def test_the_folder_of_a_dry_run_may_be_written_to(tmp_path):
    """What lies in the folder, and /dev/null, may be written to; what only looks so may not."""
    code = (
        "import os, sys; from structlog_audit.cli.doctor.dry_run import Refused, refuse_changes\n"
        "folder = sys.argv[1]; refuse_changes(folder); open(os.devnull, 'w').close(); open(folder + '/made', 'w').close()\n"
        "os.mkdir(folder + '/sub'); os.rename(folder + '/made', folder + '/sub/made'); open(folder + '/sub/made').close()\n"
        "for path in (folder + 'x', folder + '/../x', folder):\n"
        "    try: open(path, 'w')\n"
        "    except Refused as refused: print(refused)\n"
    )
    (tmp_path / "inside").mkdir()
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "inside"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert os.listdir(tmp_path) == ["inside"]


def tried(tmp_path, monkeypatch):
    """The codes of what a dry run of logging.json finds in this process, whose other loggers are out of the way."""
    (tmp_path / "dry").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(logging.Logger.manager, "loggerDict", {})
        patched.setattr(socket.socket, "connect", refused)
        patched.setattr(logging.getLogger(), "handlers", [])
        patched.setattr(logging.getLogger(), "level", logging.WARNING)
        answer = dryrun.examine(str(tmp_path / "logging.json"), str(tmp_path / "dry"))
        for handler in list(logging._handlers.values()):
            handler.close()
    return {finding["code"] for finding in answer["findings"]} - ALWAYS


def refused(*given, **more):
    """As the audit hook of the other process."""
    raise dryrun.Refused("socket.connect")


def test_the_process_that_tries_says_what_it_finds(folder, tmp_path, monkeypatch):
    """A dry run in this process, without the hook: what the other one answers."""
    monkeypatch.setattr(logging.Logger.manager, "loggerDict", {})
    (tmp_path / "logging.json").write_text(json.dumps(config(folder, loggers__audit__level="ERROR")))
    (tmp_path / "dry").mkdir()
    answer = dryrun.examine(str(tmp_path / "logging.json"), str(tmp_path / "dry"))
    assert [finding["code"] for finding in answer["findings"] if finding["code"] not in ALWAYS] == ["level"]
    assert answer["trails"] == [str(folder / "audit.jsonl")]
    assert list(folder.iterdir()) == []


class Failing(AuditFileHandler):
    """A trail whose disk fails at times."""

    fails = False

    def deliver(self, entries):
        if self.fails:
            raise DeliveryError(0) from OSError("the disk fails")
        super().deliver(entries)


class TestTrails:
    """What is found about a trail."""

    def test_a_good_trail_has_nothing(self, folder):
        """A trail as the library writes it has nothing."""
        with AuditLogger(filename=folder / "audit.jsonl") as logger:
            logger.record("STORE")
        assert found(folder / "audit.jsonl") == {}

    def test_a_folder_or_what_was_archived(self, folder):
        """A folder means the trails in it; rolled segments without an active file are a trail too."""
        for name in ("a.jsonl", "b.jsonl", "c.jsonl.20250115T103000.000000Z"):
            (folder / name).touch(0o640)
        shown = json.loads(run("doctor", folder, "-o", "json").out)
        where = {finding["where"] for finding in shown["findings"] if finding["code"] == "permissions"}
        assert where == {str(folder / name) for name in ("a.jsonl", "b.jsonl", "c.jsonl")}
        assert "permissions" in found(folder / "c.jsonl")

    def test_its_past_is_told(self, folder):
        """Gaps, outages, open intents, and files that were cut off or replaced are found in what the trail says of itself."""
        path = folder / "audit.jsonl"
        target = Failing(path)
        handler = AuditHandler(target=target, max_pending=1)
        logger = logging.getLogger("audit")
        logger.addHandler(handler)
        logger.setLevel("INFO")
        log = get_audit_logger()
        with log.operation("FORGET", intent=True):
            pass
        log.operation("EXPORT", intent=True).__enter__()  # and never left
        target.fails = True
        for _ in range(3):
            log.info("STORE")
        target.fails = False
        handler.flush()
        handler._acts.record("truncated", {"segment": "audit.jsonl"})
        handler._acts.record("replaced", {"segment": "audit.jsonl"})
        handler.close()
        findings = found(path)
        assert findings["gaps"]["severity"] == "error"
        assert findings["gaps"]["message"].startswith("2 events were lost, in 1 gaps")
        assert findings["open-intents"]["message"].startswith("1 operations were begun")
        assert "EXPORT" in findings["open-intents"]["message"]
        assert {"truncated", "replaced"} <= set(findings)
        assert findings["truncated"]["severity"] == "error"

    def test_the_clock_is_looked_at(self, folder):
        """Events that are still to come, and a clock that went back, are found."""
        path = folder / "audit.jsonl"
        shutil.copy(GOLDEN, path)
        path.chmod(0o600)
        before = dt.datetime(2025, 1, 15, 10, 0, tzinfo=dt.UTC)
        codes = {finding.code for finding in history.of_history(open_trail(path), str(path), before)}
        assert "clock-ahead" in codes
        assert "clock-steps" in codes
        after = {
            finding.code for finding in history.of_history(open_trail(path), str(path), before + dt.timedelta(days=1))
        }
        assert "clock-ahead" not in after

    def test_lines_that_are_no_events_are_found(self, folder):
        """What the reader counts is a finding, with the first place and the reason."""
        path = folder / "audit.jsonl"
        path.write_bytes(GOLDEN.read_bytes() + b"nonsense\n")
        path.chmod(0o600)
        findings = found(path)
        assert findings["foreign"]["severity"] == "warning"
        assert str(path) in findings["foreign"]["message"]

    @pytest.mark.parametrize(("mode", "what"), [(0o644, "be read"), (0o620, "be changed"), (0o666, "be changed")])
    def test_permissions(self, folder, mode, what):
        """A file that others may read or change is found."""
        (folder / "audit.jsonl").touch()
        (folder / "audit.jsonl").chmod(mode)
        assert what in found(folder / "audit.jsonl")["permissions"]["message"]

    def test_a_folder_that_anybody_may_write_to(self, folder):
        """A folder in which anybody may rename files is found; one with the sticky bit is as /tmp."""
        (folder / "audit.jsonl").touch(0o600)
        folder.chmod(0o777)
        assert "folder" in found(folder / "audit.jsonl")
        folder.chmod(0o1777)
        assert "folder" not in found(folder / "audit.jsonl")

    def test_what_is_no_file(self, folder):
        """A symbolic link is refused by writers, and found."""
        (folder / "real.jsonl").touch(0o600)
        (folder / "audit.jsonl").symlink_to("real.jsonl")
        assert found(folder / "audit.jsonl")["no-file"]["severity"] == "error"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_owners(self, folder):
        """Segments of different users are an error; a trail of somebody else is told of."""
        (folder / "audit.jsonl").touch(0o600)
        os.chown(folder / "audit.jsonl", 12345, -1)
        assert found(folder / "audit.jsonl")["owner"]["severity"] == "note"
        (folder / "audit.jsonl.20250115T103000.000000Z").touch(0o600)
        assert "user 12345" in found(folder / "audit.jsonl")["owners"]["message"]

    @pytest.mark.parametrize(
        "name", ["audit.jsonl.1", "audit.jsonl.2.gz", "audit.jsonl-20250115", "audit.jsonl.2025-01-15"]
    )
    def test_foreign_rotation(self, folder, name):
        """What logrotate and the standard library leave beside a trail is found, and our own segments are not."""
        for own in ("audit.jsonl", "audit.jsonl.20250115T103000.000000Z", "other.jsonl.1"):
            (folder / own).touch(0o600)
        assert "foreign-rotation" not in found(folder / "audit.jsonl")
        (folder / name).touch(0o600)
        assert name in found(folder / "audit.jsonl")["foreign-rotation"]["message"]

    @pytest.mark.parametrize(("rule", "severity"), [("copytruncate", "error"), ("weekly", "warning")])
    def test_logrotate(self, folder, tmp_path, rule, severity):
        """A rule of logrotate for the trail is found, copytruncate as an error; rules for other files are not."""
        path = str(folder / "audit.jsonl")
        (tmp_path / "rules").mkdir()
        (tmp_path / "rules" / "app").write_text(
            f"/var/log/none/*.log\n{{\n  daily\n}}\n{folder}/*.log {folder}/*.jsonl {{\n  {rule}\n}}\n"
        )
        findings = [
            finding for finding in places.of_places(path, str(tmp_path / "rules")) if finding.code == "logrotate"
        ]
        assert [finding.severity for finding in findings] == [severity]
        (tmp_path / "rules" / "app").write_text(f"{folder}/*.log {{\n  {rule}\n}}\n")
        assert "logrotate" not in {finding.code for finding in places.of_places(path, str(tmp_path / "rules"))}

    @pytest.mark.parametrize(
        ("kind", "code"),
        [("tmpfs", "fleeting"), ("nfs4", "remote"), ("fuse.sshfs", "remote"), ("overlay", "container"), ("ext4", None)],
    )
    def test_file_systems(self, folder, tmp_path, monkeypatch, kind, code):
        """A trail in memory, on the network or inside of a container is found by the table of mounts."""
        inner = str(folder).replace(" ", "\\040")
        table = tmp_path / "mountinfo"
        table.write_text(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
            f"2 1 0:5 / {inner} rw,nosuid shared:2 master:1 - {kind} none rw,size=1k\n"
            f"3 1 0:6 / {inner}/deeper rw - xfs none rw\n"
        )
        assert places.mount_of(folder, str(table)) == (kind, str(folder))
        assert places.mount_of(folder / "deeper" / "x", str(table)) == ("xfs", str(folder / "deeper"))
        assert places.mount_of(Path("/"), str(table)) == ("ext4", "/")
        monkeypatch.setattr(places, "mount_of", lambda folder: (kind, str(folder)))
        codes = {finding.code for finding in places.of_places(str(folder / "audit.jsonl"))}
        assert codes & {"fleeting", "remote", "container"} == ({code} if code else set())

    def test_without_a_table_of_mounts_nothing_is_said(self, folder):
        """Where the system has no such table, nothing is known of it."""
        assert places.mount_of(folder, "/nothing") == ("", "")

    def test_the_disk(self, folder, monkeypatch):
        """A disk or a file system that is nearly full is found."""
        usage = type(shutil.disk_usage(folder))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
        system = os.statvfs_result((4096, 4096, 1, 1, 1, 100, 10, 10, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda path: system)
        found_ = {finding.code: finding for finding in places.of_places(str(folder / "audit.jsonl"))}
        assert found_["disk"].message == "1 MB are free, 0% of the disk"
        assert "10 more files" in found_["inodes"].message


class TestMachine:
    """What is found about the machine."""

    NOW = dt.datetime.now(dt.UTC)

    @pytest.mark.parametrize(("said", "codes"), [("yes", set()), ("no", {"clock"}), ("", set())])
    def test_the_clock_is_asked_for(self, tmp_path, monkeypatch, said, codes):
        """What systemd says of the clock counts; where it says nothing, nothing is said."""
        (tmp_path / "timedatectl").write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / "timedatectl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert {f.code for f in machine.of_machine(self.NOW)} - ALWAYS - {"file-size"} == codes
        monkeypatch.setenv("PATH", "/nothing")
        assert machine.clock_in_step() is None

    def test_a_clock_that_is_behind(self):
        """A clock before the installation of this library is wrong."""
        assert "clock-behind" in {f.code for f in machine.of_machine(self.NOW - dt.timedelta(days=36500))}

    def test_a_limit_of_file_sizes(self):
        """A limit of file sizes is found."""
        code = "from structlog_audit.cli import main; main()"
        done = subprocess.run(
            ["bash", "-c", f"ulimit -f 1000; exec {sys.executable} -c '{code}' doctor -o json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "file-size" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}

    def test_python_since_the_re_entrancy_guard(self, monkeypatch):
        """A Python that discards logging calls made while a record is handled is noted, once."""
        monkeypatch.setattr(sys, "version_info", (3, 13, 4))
        assert "re-entrancy" in {f.code for f in machine.of_machine(self.NOW)}


class TestWords:
    """How it is said, and how it ends."""

    def test_in_words(self, folder, tmp_path):
        """Each finding has its severity, message, code, place and fix, the worst first; a line sums up."""
        (tmp_path / "logging.json").write_text(
            json.dumps(config(folder, loggers__audit__level="ERROR", handlers__file__maxBytes=0))
        )
        done = run(
            "doctor",
            "--config",
            tmp_path / "logging.json",
            "--ignore",
            "container",
            "--ignore",
            "disk",
            "--ignore",
            "clock",
        )
        assert done.code == 4
        assert done.lines[:3] == [
            "error: logger 'audit' drops events below ERROR [level]",
            f"  in {tmp_path / 'logging.json'}: handler 'audit'",
            '  fix: set its level to "INFO"',
        ]
        assert re.search(r"^note: handler 'file': with maxBytes=0 .* \[one-segment\]$", done.out, re.MULTILINE)
        assert re.fullmatch(
            rf"1 error, 0 warnings, \d notes?; looked at {tmp_path}/logging.json, {folder}/audit.jsonl", done.lines[-1]
        )

    @pytest.mark.parametrize(
        ("changes", "codes"),
        [({}, (0, 0, 0)), ({"handlers__file__maxBytes": 0}, (0, 0, 4)), ({"handlers__audit__max_pending": 0}, (0, 4, 4)),
         ({"loggers__audit__level": "ERROR"}, (4, 4, 4))],
    )  # fmt: skip
    def test_the_exit_code_is_for_ci(self, folder, tmp_path, changes, codes):
        """--fail-on says from which severity on the exit code is 4: warning, unless told otherwise."""
        (tmp_path / "logging.json").write_text(json.dumps(config(folder, **changes)))
        ignored = [word for code in OF_PLACES | {"re-entrancy"} for word in ("--ignore", code)]
        for severity, code in zip(("error", "warning", "note"), codes, strict=True):
            assert run("doctor", "--config", tmp_path / "logging.json", "--fail-on", severity, *ignored).code == code
        assert run("doctor", "--config", tmp_path / "logging.json", *ignored).code == codes[1]

    def test_findings_can_be_ignored(self, folder, tmp_path):
        """A finding that is known and meant can be left out by its code."""
        path = tmp_path / "logging.json"
        path.write_text(json.dumps(config(folder, handlers__audit__max_pending=0)))
        assert "no-pending" in found("--config", path)
        assert found("--config", path, "--ignore", "no-pending") == {}

    def test_several_configurations(self, folder, tmp_path):
        """Several configurations are looked at one by one, each under its name."""
        for name, level in (("a.json", "ERROR"), ("b.json", "CRITICAL")):
            (tmp_path / name).write_text(json.dumps(config(folder, loggers__audit__level=level)))
        document = json.loads(run("doctor", "-c", tmp_path / "a.json", "-c", tmp_path / "b.json", "-o", "json").out)
        assert [f["where"].split(":")[0][-6:] for f in document["findings"] if f["code"] == "level"] == [
            "a.json",
            "b.json",
        ]
        assert document["looked_at"] == [
            str(tmp_path / "a.json"),
            str(tmp_path / "b.json"),
            str(folder / "audit.jsonl"),
        ]
