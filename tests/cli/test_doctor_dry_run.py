"""Dry runs of ``doctor``: a configuration changes nothing while it is applied."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
from commands import run
from doctor_helpers import clean_process, findings_about, findings_of, make_config, state_of  # noqa: F401

from structlog_audit.cli.doctor import dry_run


@pytest.mark.parametrize(
    "action",
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
def test_action_of_config_is_refused(tmp_path, monkeypatch, action):
    """A configuration that changes anything while it is loaded is refused with an error, and the change does not happen."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "settings.py").write_text(
        f"import os, pathlib, shutil, socket, sqlite3, subprocess\n{action}\nLOGGING = {{'version': 1}}"
    )
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path)
    done = run("doctor", "--config", "settings.py")
    assert done.code == 3
    assert "the doctor does not allow what its import does" in done.error_line
    assert state_of(tmp_path) == before


APPLICATION = """
import logging.config
from structlog_audit import get_audit_handler, get_audit_logger

LOGGING = {config!r}
logging.config.dictConfig(LOGGING)
get_audit_logger(required=True).info("start")
assert get_audit_handler().count_events() == 1
"""


def test_module_that_applies_its_configuration_is_examined_without_a_change(tmp_path, monkeypatch):
    """A module may call dictConfig, and record, while it is imported: nothing is written, and the findings are the same."""
    config = make_config(tmp_path, handlers__file__maxBytes=60_000)
    (tmp_path / "shop_settings.py").write_text(APPLICATION.format(config=config))
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path)
    findings = findings_of("--config", "shop_settings.py")
    assert state_of(tmp_path) == before
    assert list(findings) == ["small-segments"]
    expected = findings_about(tmp_path, config)
    assert {code: found["message"] for code, found in findings.items()} == {
        code: found["message"] for code, found in expected.items()
    }


def test_configuration_that_fails_at_the_import_is_an_error_with_its_cause(tmp_path):
    """dictConfig names only the handler that it cannot create; the error has the reason as well."""
    config = make_config(tmp_path, handlers__file__backupCount=-1)
    (tmp_path / "settings.py").write_text(f"import logging.config\nlogging.config.dictConfig({config!r})")
    line = run("doctor", "--config", tmp_path / "settings.py").error_line
    assert "Unable to configure handler 'file'" in line
    assert "backupCount=-1" in line


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("/elsewhere/x", "r", os.O_RDONLY)),
        ("open", (7, "w", os.O_WRONLY)),
        ("open", ("/inside/x", "w", os.O_WRONLY)),
        ("open", (os.devnull, "w", os.O_WRONLY)),
        ("os.mkdir", ("/inside/x", 0o777, -1)),
        ("import", ("json",)),
    ],
)
def test_audit_event_without_change_outside_is_allowed(event, arguments):
    """Reading, and changes inside of the folder, are allowed."""
    dry_run.refuse("/inside/", event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("/elsewhere/x", "w", os.O_WRONLY)),
        ("open", (b"/elsewhere/x", None, os.O_RDWR | os.O_CREAT)),
        ("open", ("/inside/../x", "w", os.O_WRONLY)),
        ("os.remove", ("/elsewhere/x", -1)),
        ("socket.connect", (None, ("127.0.0.1", 9))),
        ("os.fork", ()),
    ],
)
def test_audit_event_with_change_outside_is_refused(event, arguments):
    """Changes outside of the folder, connections and new processes are refused."""
    with pytest.raises(dry_run.RefusedError):
        dry_run.refuse("/inside/", event, arguments)


def test_hook_allows_changes_in_folder_only(tmp_path):
    """The installed hook allows changes in the folder and writing to /dev/null, and refuses similar paths."""
    code = (
        "import os, sys; from structlog_audit.cli.doctor.dry_run import RefusedError, refuse_changes\n"
        "folder = sys.argv[1]; refuse_changes(folder); open(os.devnull, 'w').close(); open(folder + '/made', 'w').close()\n"
        "os.mkdir(folder + '/sub'); os.rename(folder + '/made', folder + '/sub/made'); open(folder + '/sub/made').close()\n"
        "for path in (folder + 'x', folder + '/../x', folder):\n"
        "    try: open(path, 'w')\n"
        "    except RefusedError as refused: print(refused)\n"
    )
    (tmp_path / "inside").mkdir()
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "inside"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert os.listdir(tmp_path) == ["inside"]


def test_vault_of_a_redactor_is_made_in_the_folder_of_the_dry_run(tmp_path):
    """A configuration with a vault is applied whole, and neither the vault nor its folder is created."""
    handler = {
        "()": "structlog_audit.AuditHandler",
        "filename": str(tmp_path / "audit.jsonl"),
        "redactor": {"keys": {"email": "erasable"}, "vault": str(tmp_path / "a b?" / "audit.vault")},
    }
    logger = {"handlers": ["audit"], "level": "INFO", "propagate": False}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"audit": handler},
        "loggers": {"audit": logger},
    }
    (tmp_path / "logging.json").write_text(json.dumps(config))
    before = state_of(tmp_path)
    done = run("doctor", "--config", tmp_path / "logging.json")
    assert "not-tried" not in done.out
    assert "no-audit-handler" not in done.out
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("is_target", [False, True])
def test_dry_run_never_signs_what_it_records(tmp_path, is_target):
    """The files of a dry run are another history of the same origin: the key of a configuration does not sign them."""
    key = tmp_path / "audit.pem"
    run("keygen", key, "--origin", "audit.example/shop")
    file = {
        "()": "structlog_audit.AuditFileHandler",
        "filename": str(tmp_path / "audit.jsonl"),
        "integrity": {"origin": "audit.example/shop", "key": str(key)},
    }
    handlers = {"audit": {"()": "structlog_audit.AuditHandler", "target": file} if is_target else file}
    folder = tmp_path / "trial"
    folder.mkdir()
    trial = dry_run.DryRun({"version": 1, "handlers": handlers}, str(folder))
    trial.configure()
    handler = trial.config["handlers"]["audit"]
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "levelname": "INFO"}))
    handler.close()
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert names == ["audit.jsonl"]
