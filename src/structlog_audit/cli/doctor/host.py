"""Checks of the machine and of the running Python: clock, limits and known defects."""

from __future__ import annotations

import datetime as dt
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import structlog_audit
from structlog_audit.cli.doctor.diagnosis import Diagnosis, RatedFinding, error, located, note, warning
from structlog_audit.recording.logger_tree import discards_nested_records

_WHERE = "this machine"
_NTP_QUERY = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
_ONE_DAY = 86_400


def check_host(now: dt.datetime) -> Iterator[Diagnosis]:
    """Yield diagnoses of the clock, the limits of this process and this Python."""
    for check in (_check_clock(now), _check_limits(), _check_python()):
        yield from located(_WHERE, check)


def is_clock_synchronized() -> bool | None:
    """Return whether systemd reports the clock as synchronized; None if it reports nothing."""
    try:
        done = subprocess.run(_NTP_QUERY, capture_output=True, text=True, timeout=2, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None

    return {"yes": True, "no": False}.get(done.stdout.strip())


def _check_clock(now: dt.datetime) -> Iterator[RatedFinding]:
    installed = os.stat(structlog_audit.__file__).st_mtime
    if now.timestamp() < installed - _ONE_DAY:
        message = f"the clock reads {now:%Y-%m-%d}, which is before this library was installed"
        yield error("clock-behind", message, "set the clock")
    elif is_clock_synchronized() is False:
        fix = "start a time service: systemd-timesyncd, chrony or ntpd"
        yield warning("clock", "the clock is not synchronized by NTP", fix)


def _check_limits() -> Iterator[RatedFinding]:
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft_limit != resource.RLIM_INFINITY:
        message = f"files are limited to {soft_limit} bytes (ulimit -f): an event beyond the limit cannot be written"
        yield warning("file-size", message, "raise the limit above maxBytes")


def _check_python() -> Iterator[RatedFinding]:
    if discards_nested_records(logging.getLogger()):
        version = sys.version.split()[0]
        message = f"Python {version} discards logging calls made while a record is handled (gh-91555)"
        fix = "in filters, __str__ and signal handlers, record events through get_audit_logger, which is not affected"
        yield note("re-entrancy", message, fix)
