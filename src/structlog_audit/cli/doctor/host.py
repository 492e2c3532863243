"""What may be wrong with the machine and this Python."""

from __future__ import annotations

import datetime as dt
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import structlog_audit
from structlog_audit.cli.doctor.findings import Finding
from structlog_audit.cli.options import Severity
from structlog_audit.recording.health_checks import RE_ENTRANCY_GUARD

_WHERE = "this machine"
_ASKING = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
_DAY = 86_400


def of_machine(now: dt.datetime) -> Iterator[Finding]:
    """What is to be found about the clock, the limits and the Python of this process."""
    if now.timestamp() < os.stat(structlog_audit.__file__).st_mtime - _DAY:
        message = f"the clock says {now:%Y-%m-%d}, and this library was installed later than that"
        yield Finding("clock-behind", Severity.ERROR, _WHERE, message, "set the clock")
    elif clock_in_step() is False:
        fix = "start a time service: systemd-timesyncd, chrony or ntpd"
        yield Finding("clock", Severity.WARNING, _WHERE, "the clock is not kept in step by NTP", fix)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        message = f"files may have {limit} bytes at most here (ulimit -f): an event beyond that can't be written"
        yield Finding("file-size", Severity.WARNING, _WHERE, message, "raise the limit above maxBytes")
    if sys.version_info >= RE_ENTRANCY_GUARD:
        message = f"Python {sys.version.split()[0]} discards logging calls made while a record is handled (gh-91555)"
        fix = "record from filters, __str__ and signal handlers through get_audit_logger, which goes round that"
        yield Finding("re-entrancy", Severity.NOTE, _WHERE, message, fix)


def clock_in_step() -> bool | None:
    """Whether systemd says that the clock is kept in step; None if it does not say."""
    try:
        done = subprocess.run(_ASKING, capture_output=True, text=True, timeout=2, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())
