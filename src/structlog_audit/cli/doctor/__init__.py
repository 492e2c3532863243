"""``doctor``: what mutes, loses or slows events, and the fix for each.

It changes nothing: a configuration is tried in a process of its own that may not write (`dryrun`), trails are only read.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from structlog_audit.cli.doctor.filesystem import of_places
from structlog_audit.cli.doctor.findings import Finding
from structlog_audit.cli.doctor.host import of_machine
from structlog_audit.cli.doctor.trail_history import of_history
from structlog_audit.cli.exit_codes import Exit, UnreadableError, UsageError
from structlog_audit.cli.options import Format, Severity
from structlog_audit.cli.terminal import clean, has_colours, progress, put, width
from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.opening import open_trail

_RANKS = {severity: rank for rank, severity in enumerate(Severity)}
_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
_PATIENCE = 60
"""Seconds that loading and applying a configuration may take."""


def doctor(
    trails: Sequence[str], configs: Sequence[str], output: Format, fail_on: Severity, ignore: Sequence[str]
) -> Exit:
    """Write what is to be found about *trails*, *configs* and the machine; whether anything is as bad as *fail_on*.

    Args:
        trails: Paths; if there are none, those that the configurations name.
        configs: What `loading` takes.
        output: How to write it.
        fail_on: From which severity on the exit code says so.
        ignore: Codes of findings that are left out.
    """
    if "-" in trails:
        raise UsageError("the doctor looks at files: give the path of a trail")
    now = dt.datetime.now(dt.UTC)
    found: list[Finding] = []
    named: list[str] = []
    for given in configs:
        findings, its_trails = of_configuration(given)
        found += findings
        named += its_trails
    looked_at = [*configs, *dict.fromkeys(trails or named)]
    for path in dict.fromkeys(trails or named):
        found += of_trail(path, now, may_be_missing=path not in trails)
    found += of_machine(now)
    kept = _sorted(found, ignore)
    if output == Format.JSON:
        document = {"findings": [finding.to_dict() for finding in kept], "looked_at": looked_at}
        put(json.dumps(document, indent=2) + "\n")
    else:
        for line in _told(kept, looked_at):
            put(line + "\n")
    bad = any(_RANKS[finding.severity] <= _RANKS[fail_on] for finding in kept)
    return Exit.FINDINGS if bad else Exit.DONE


def of_trail(given: str, now: dt.datetime, *, may_be_missing: bool) -> list[Finding]:
    """What is to be found about the trail at *given*, or the trails, if that is a folder or a pattern.

    Raises:
        AuditReadError: There is none, and it may not be missing.
    """
    found: list[Finding] = []
    try:
        with progress(lambda: trail.size(), quietly=True) as told:
            trail = open_trail(given, progress=told)
            for path in trail.paths:
                found += of_places(path)
            found += of_history(trail, given, now)
    except (OSError, AuditReadError) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, PermissionError):
            if not may_be_missing:
                raise
            return [*of_places(given)]
        message = f"it can't be read by this user ({cause.filename}: {cause.strerror})"
        fix = "run the doctor as the user of the application"
        found.append(Finding("unreadable", Severity.ERROR, given, message, fix))
    return found


def _sorted(found: Sequence[Finding], ignore: Sequence[str]) -> list[Finding]:
    """The findings that are not ignored, the worst first, each once; what is said of a handler is not said of the machine."""
    once = {(finding.code, finding.message): finding for finding in found if finding.code not in ignore}
    kept = sorted(once.values(), key=lambda finding: _RANKS[finding.severity])
    reentrant = [finding for finding in kept if finding.code == "re-entrancy"]
    return [finding for finding in kept if finding not in reentrant[1:]]


def of_configuration(given: str) -> tuple[list[Finding], list[str]]:
    """What is to be found about the configuration *given*, and the trails that it names. In a process of its own.

    Raises:
        UnreadableError: It can't be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="structlog-audit-doctor-") as folder:
        command = [sys.executable, "-B", "-m", "structlog_audit.cli.doctor.dry_run", given, os.path.realpath(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)  # noqa: S603
            answer = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise UnreadableError(f"{given} was not loaded within {_PATIENCE} seconds") from None
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UnreadableError(f"{given} ended the process that loaded it ({done.returncode}): {last}") from None
    if "error" in answer:
        raise UnreadableError(answer["error"])
    found = [Finding(**{**said, "severity": Severity(said["severity"])}) for said in answer["findings"]]
    return found, answer["trails"]


def _told(found: Sequence[Finding], looked_at: Sequence[str]) -> Iterator[str]:
    """The findings in words."""
    columns = width()
    for finding in found:
        label = f"{finding.severity.value}:"
        shown = f"\x1b[{_COLOURS[finding.severity]}m{label}\x1b[0m" if has_colours() else label
        first, *rest = _wrapped(f"{label} {finding.message} [{finding.code}]", columns)
        yield first.replace(label, shown, 1)
        yield from rest
        yield from _wrapped(f"  in {finding.where}", columns)
        yield from _wrapped(f"  fix: {finding.fix}", columns)
    counts = Counter(finding.severity for finding in found)
    said = ", ".join(f"{counts[severity]} {severity.value}{'s' * (counts[severity] != 1)}" for severity in Severity)
    seen = clean(", ".join(looked_at)) or "this machine; name a trail, or a configuration by --config"
    yield from _wrapped(f"{said if found else 'nothing found'}; looked at {seen}", columns)


def _wrapped(text: str, columns: int | None) -> list[str]:
    text = clean(text)
    if columns is None:
        return [text]
    indent = "    " if text.startswith("  ") else "  "
    return textwrap.wrap(text, columns, subsequent_indent=indent, break_on_hyphens=False) or [text]
