"""Findings of ``doctor`` about logging configurations."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from commands import GOLDEN
from doctor_helpers import (
    ALWAYS,
    clean_process,  # noqa: F401
    findings_about,
    findings_of,
    make_config,
    state_of,
    trail_folder,  # noqa: F401
)

from structlog_audit import SubjectVault
from structlog_audit.cli.doctor import dry_run
from structlog_audit.cli.doctor.configuration import _check_vaults

README = Path(__file__).parents[2] / "README.md"
ROTATING = {"class": "logging.handlers.RotatingFileHandler", "backupCount": 3}
CONSOLE = {"class": "logging.StreamHandler"}


def refuse_connection(*given, **more):
    """Refuse a connection as the audit hook of a dry run does."""
    raise dry_run.RefusedError("socket.connect")


def dry_run_here(tmp_path, monkeypatch):
    """Return the answer of a dry run of logging.json in this process, apart from its other loggers."""
    (tmp_path / "dry").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(logging.Logger.manager, "loggerDict", {})
        patched.setattr(socket.socket, "connect", refuse_connection)
        patched.setattr(logging.getLogger(), "handlers", [])
        patched.setattr(logging.getLogger(), "level", logging.WARNING)
        answer = dry_run.examine(str(tmp_path / "logging.json"), str(tmp_path / "dry"))
        for handler in list(logging._handlers.values()):
            handler.close()
    return answer


def codes_in(answer):
    """Return the codes of the findings in an answer of a dry run."""
    return {finding["code"] for finding in answer["findings"]} - ALWAYS


def test_config_without_mistakes_has_no_findings(folder, tmp_path):
    """A good configuration has no findings."""
    assert findings_about(tmp_path, make_config(folder)) == {}


def test_config_is_examined_without_creating_its_files(folder, tmp_path):
    """The files that a configuration names are not created."""
    findings_about(tmp_path, make_config(folder))
    assert list(folder.iterdir()) == []


def test_quickstart_config_has_no_errors(tmp_path, monkeypatch):
    """The findings about the README's configuration are its relative path and the missing limit."""
    code = re.search(r"dictConfig\(\n(.*?)\n\)\n", README.read_text(), re.DOTALL)[1]
    (tmp_path / "settings.py").write_text(f"LOGGING = {code.strip()}\n")
    monkeypatch.chdir(tmp_path)
    assert set(findings_of("--config", "settings.py")) == {"relative-path", "unbounded"}
    assert os.listdir(tmp_path) == ["settings.py"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loggers__audit__level": "WARNING"}, {"level": "error"}),
        ({"loggers__audit__level": None}, {"level": "error"}),
        ({"loggers__audit__level": None, "root": {"level": "INFO"}}, {}),
        ({"loggers": {}, "root": {"handlers": ["audit"], "level": "INFO"}}, {"root": "note"}),
        (
            {"loggers__audit__propagate": True, "root": {"handlers": ["audit"], "level": "INFO"}},
            {"recorded-twice": "error", "root": "note"},
        ),
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
            {"existing-loggers": "warning", "root": "note"},
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
        ({"loggers__audit__handlers": ["audit", "file"]}, {"recorded-twice": "error"}),
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
def test_config_with_mistake_has_its_finding_only(folder, tmp_path, monkeypatch, changes, expected):
    """Each mistake has a finding with a severity, a message and a fix; nothing else does, and no file is changed."""
    config = json.loads(json.dumps(make_config(folder, **changes)).replace("FOLDER", str(folder)))
    findings = findings_about(tmp_path, config)
    assert codes_in(dry_run_here(tmp_path, monkeypatch)) == set(expected)
    assert {code: finding["severity"] for code, finding in findings.items()} == expected
    assert all(finding["message"] and finding["fix"] for finding in findings.values())
    assert list(folder.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["dry", "logging.json", "logs"]


def test_level_filter_of_structlog_has_finding(folder, tmp_path):
    """A Python module that configures structlog as well is examined with that."""
    (tmp_path / "settings.py").write_text(
        "import logging, structlog, structlog_audit\n"
        f"LOGGING = {make_config(folder)!r}\n"
        "structlog.configure([structlog_audit.AuditProcessor()], structlog.make_filtering_bound_logger(logging.ERROR))\n"
    )
    findings = findings_of("--config", tmp_path / "settings.py")
    assert {code: finding["severity"] for code, finding in findings.items()} == {"structlog-level": "error"}


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="dictConfig configures a QueueHandler with its handlers since 3.12"
)
def test_config_with_queue_before_audit_handler_has_finding(folder, tmp_path):
    """A QueueHandler in front of the audit handler is a finding."""
    queue = {"class": "logging.handlers.QueueHandler", "handlers": ["audit"]}
    config = make_config(folder, handlers__queue=queue, loggers__audit__handlers=["queue"])
    assert "queue" in findings_about(tmp_path, config)


def test_trail_of_config_is_examined(folder, tmp_path):
    """The trail that a configuration names is examined too."""
    shutil.copy(GOLDEN, folder / "audit.jsonl")
    (folder / "audit.jsonl").chmod(0o644)
    findings = findings_about(tmp_path, make_config(folder))
    assert findings["permissions"]["where"] == str(folder / "audit.jsonl")


def test_trail_of_config_is_unchanged(folder, tmp_path):
    """The trail that a configuration names is not opened for writing, even if it ends with a torn line."""
    shutil.copy(GOLDEN, folder / "audit.jsonl")
    with (folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"event_id":"evt_torn')
    before = state_of(folder)
    findings_about(tmp_path, make_config(folder, handlers__audit__warm_start=True))
    assert state_of(folder) == before


def test_dry_run_answers_findings_and_trails(folder, tmp_path, monkeypatch):
    """The answer of a dry run has findings and the original paths of trails; no file is created at these paths."""
    (tmp_path / "logging.json").write_text(json.dumps(make_config(folder, loggers__audit__level="ERROR")))
    answer = dry_run_here(tmp_path, monkeypatch)
    assert codes_in(answer) == {"level"}
    assert answer["trails"] == [str(folder / "audit.jsonl")]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "expected"),
    [
        (0o600, 0o700, []),
        (0o600, 0o755, []),
        (0o640, 0o700, ["error"]),
        (0o600, 0o770, ["warning"]),
        (0o600, 0o1777, []),
    ],
)
def test_vault_that_other_users_reach_is_reported(folder, tmp_path, file_mode, folder_mode, expected):
    """The files need mode 0600, and a folder in which only the owner replaces them."""
    safe = tmp_path / "safe"
    safe.mkdir()
    SubjectVault(safe / "audit.vault", create=True).close()
    (safe / "audit.vault").chmod(file_mode)
    safe.chmod(folder_mode)
    redactor = {"vault": str(safe / "audit.vault"), "paths": {"user_id": "subject"}}
    config = make_config(folder, handlers__audit__redactor=redactor)
    severities = [severity for severity, finding in _check_vaults(config) if finding.code == "vault-permissions"]
    assert severities == expected
    assert list(_check_vaults(make_config(folder))) == []
