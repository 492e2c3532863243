"""Findings of ``doctor`` about the machine and the running Python."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import shlex
import subprocess
import sys

import pytest
from doctor_helpers import ALWAYS

from structlog_audit.cli.doctor import host

NOW = dt.datetime.now(dt.UTC)


def host_codes(now=NOW):
    """Return the codes of the findings about this machine."""
    return {diagnosis.finding.code for diagnosis in host.check_host(now)}


@pytest.mark.parametrize(("answer", "codes"), [("yes", set()), ("no", {"clock"}), ("", set())])
def test_clock_that_systemd_reports_unsynchronized_has_finding(tmp_path, monkeypatch, answer, codes):
    """A clock is a finding only if systemd reports that it is not synchronized."""
    (tmp_path / "timedatectl").write_text(f"#!/bin/sh\necho {answer}\n")
    (tmp_path / "timedatectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert host_codes() - ALWAYS - {"file-size"} == codes


def test_clock_without_systemd_is_unknown(monkeypatch):
    """Without timedatectl, it is unknown whether the clock is synchronized."""
    monkeypatch.setenv("PATH", "/nothing")
    assert host.is_clock_synchronized() is None


def test_clock_before_installation_has_finding():
    """A clock that reads a time before the installation of this library is a finding."""
    assert "clock-behind" in host_codes(NOW - dt.timedelta(days=36500))


def test_file_size_limit_has_finding():
    """A limit of the size of files is a finding."""
    code = "from structlog_audit.cli import main; main()"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1000; exec {shlex.quote(sys.executable)} -c '{code}' doctor -o json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "file-size" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize("version", [(3, 13, 4), (3, 14, 2)])
@pytest.mark.parametrize(("discards", "codes"), [(True, {"re-entrancy"}), (False, set())])
def test_python_has_re_entrancy_finding_if_its_loggers_discard_nested_records(monkeypatch, version, discards, codes):
    """A finding comes from a trial of a logger, not from the version of Python."""
    nested = []

    def handle(logger, record):
        if nested and discards:
            return
        nested.append(record)
        logger.callHandlers(record)
        nested.pop()

    monkeypatch.setattr(logging.Logger, "handle", handle)
    monkeypatch.setattr(sys, "version_info", version)
    assert host_codes() & {"re-entrancy"} == codes
