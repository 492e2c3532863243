"""Configurations, folders and runs of the doctor, for its tests."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run

from structlog_audit.recording.logger_tree import discards_nested_records

ALWAYS = {"re-entrancy"} if discards_nested_records(logging.getLogger()) else set()
"""Codes of findings about this Python."""

HOST_DEPENDENT = {"container", "disk", "inodes", "fleeting", "clock", "file-size", "remote"}
"""Codes of findings that depend on the machine of the tests."""


def make_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a configuration without mistakes, with changes by the path of a member.

    ``handlers__audit__max_pending=0`` sets a member, ``None`` removes it, the text ``"None"`` sets it to None.
    """
    config: dict[str, Any] = {
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
        at = config
        for name in names:
            at = at.setdefault(name, {})

        if value is None:
            del at[last]
        else:
            at[last] = None if value == "None" else value

    return config


def state_of(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return sizes, times and modes of everything in *folder*."""
    statuses = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {path: (status.st_size, status.st_mtime_ns, status.st_mode) for path, status in statuses.items()}


def findings_of(*words: object) -> dict[str, dict[str, str]]:
    """Return the findings of a run by code, without those about the machine and the Python of the tests."""
    document = json.loads(run("doctor", *words, "-o", "json").out)
    by_code = {finding["code"]: finding for finding in document["findings"]}
    return {code: finding for code, finding in by_code.items() if code not in HOST_DEPENDENT | ALWAYS}


def findings_about(folder: Path, config: dict[str, Any], *words: object) -> dict[str, dict[str, str]]:
    """Return the findings about *config*, saved as logging.json in *folder*."""
    path = folder / "logging.json"
    path.write_text(json.dumps(config))
    return findings_of("--config", path, *words)


@pytest.fixture(name="folder")
def trail_folder(tmp_path):
    """A private folder, as for a trail."""
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def clean_process(monkeypatch):
    """Forget imported configurations; keep dry runs from counting coverage, which they may not write."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)

    before = set(sys.modules)
    yield
    for name in {"settings", "x", "yaml"} & (set(sys.modules) - before):
        del sys.modules[name]
