"""``doctor``: find settings that drop, lose or delay events, with a fix for each.

The doctor changes nothing. It applies a configuration in a subprocess that cannot write (`dry_run`), and only reads trails.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from structlog_audit.cli.choices import DocumentOutput, Severity
from structlog_audit.cli.doctor.diagnosis import Diagnosis, error, from_health_check, located
from structlog_audit.cli.doctor.filesystem import check_filesystem
from structlog_audit.cli.doctor.host import check_host
from structlog_audit.cli.doctor.report import json_report, text_report
from structlog_audit.cli.doctor.trail_history import check_history
from structlog_audit.cli.exit_codes import Exit, UnreadableError, UsageError
from structlog_audit.cli.terminal import progress, put
from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.opening import open_trail

_RANKS = {severity: rank for rank, severity in enumerate(Severity)}

_DRY_RUN_SECONDS = 60
"""The time limit for loading and applying a configuration."""


def run_doctor(
    trails: Sequence[str], configs: Sequence[str], output: DocumentOutput, fail_on: Severity, ignore: Sequence[str]
) -> Exit:
    """Write a report on trails, configurations and this machine; return the exit code.

    Args:
        trails: Paths of trails; if empty, those that the configurations name.
        configs: Configurations, as for `config_loading.load_config`.
        output: The format of the report.
        fail_on: The lowest severity that exits with `Exit.FINDINGS`.
        ignore: Codes of findings to omit.

    Raises:
        AuditReadError: One of *trails* cannot be read.
        UnreadableError: One of *configs* cannot be loaded.
        UsageError: One of *trails* is ``-``.
    """
    if "-" in trails:
        raise UsageError("TRAIL='-': expected the path of a trail, got stdin")

    now = dt.datetime.now(dt.UTC)
    diagnoses: list[Diagnosis] = []
    configured_trails: list[str] = []
    for config in configs:
        of_config, trails_of_config = examine_configuration(config)
        diagnoses += of_config
        configured_trails += trails_of_config

    # A trail that is only configured may not exist yet.
    paths = list(dict.fromkeys(trails or configured_trails))
    for path in paths:
        diagnoses += examine_trail(path, now, may_be_missing=path not in trails)

    diagnoses += check_host(now)
    kept = _without_duplicates(diagnosis for diagnosis in diagnoses if diagnosis.finding.code not in ignore)
    _write(kept, [*configs, *paths], output)

    is_failure = any(_RANKS[diagnosis.severity] <= _RANKS[fail_on] for diagnosis in kept)
    return Exit.FINDINGS if is_failure else Exit.DONE


def examine_trail(given: str, now: dt.datetime, *, may_be_missing: bool) -> list[Diagnosis]:
    """Return the diagnoses of a trail.

    Args:
        given: The path of a trail, or a folder or pattern for several.
        now: The present time.
        may_be_missing: Whether to check only the place of a trail that cannot be opened.

    Raises:
        AuditReadError, OSError: The trail cannot be opened, unless *may_be_missing* or for lack of permission.
    """
    diagnoses: list[Diagnosis] = []
    try:
        with progress(lambda: trail.size(), quietly=True) as report_progress:
            trail = open_trail(given, progress=report_progress)
            for path in trail.paths:
                diagnoses += check_filesystem(path)
                diagnoses += _check_seal(path, now)
            diagnoses += check_history(trail, given, now)
    except (OSError, AuditReadError) as failure:
        cause = failure.__cause__ or failure
        if isinstance(cause, PermissionError):
            return diagnoses + _unreadable(given, cause)
        if not may_be_missing:
            raise
        return list(check_filesystem(given))

    return diagnoses


def _check_seal(path: str, now: dt.datetime) -> Iterator[Diagnosis]:
    """Yield diagnoses of the seal of a trail, if it has one."""
    if os.path.isdir(f"{path}.seal"):
        # Imported lazily: most trails have no seal.
        from structlog_audit.recording.seal_checks import seal_findings

        for finding in seal_findings(path, now):
            yield from_health_check(path, finding)


def _unreadable(given: str, cause: PermissionError) -> list[Diagnosis]:
    message = f"this user cannot read the trail ({cause.filename}: {cause.strerror})"
    finding = error("unreadable", message, "run the doctor as the user of the application")
    return list(located(given, [finding]))


def examine_configuration(given: str) -> tuple[list[Diagnosis], list[str]]:
    """Return the diagnoses of a configuration, and the paths of the trails that it names.

    The configuration is applied in a subprocess, which changes nothing.

    Raises:
        UnreadableError: It cannot be loaded.
    """
    answer = _dry_run(given)
    if "error" in answer:
        raise UnreadableError(answer["error"])

    diagnoses = [Diagnosis.from_dict(members) for members in answer["findings"]]
    return diagnoses, answer["trails"]


def _dry_run(given: str) -> dict[str, Any]:
    """Return the answer of `dry_run.examine` in a subprocess."""
    with tempfile.TemporaryDirectory(prefix="structlog-audit-doctor-") as folder:
        module = "structlog_audit.cli.doctor.dry_run"
        command = [sys.executable, "-B", "-m", module, given, os.path.realpath(folder)]
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, timeout=_DRY_RUN_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise UnreadableError(f"{given} was not loaded within {_DRY_RUN_SECONDS} seconds") from None

    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"{given} ended the process that loaded it (exit code {done.returncode}): {last_line}"
        raise UnreadableError(message) from None
    return answer


def _without_duplicates(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return each finding once, the most severe first."""
    by_finding = {(diagnosis.finding.code, diagnosis.finding.message): diagnosis for diagnosis in diagnoses}
    unique = sorted(by_finding.values(), key=lambda diagnosis: _RANKS[diagnosis.severity])

    # Handlers and the machine report the same property of this Python in different words.
    kept = []
    has_re_entrancy = False
    for diagnosis in unique:
        is_re_entrancy = diagnosis.finding.code == "re-entrancy"
        if not (is_re_entrancy and has_re_entrancy):
            kept.append(diagnosis)
        has_re_entrancy = has_re_entrancy or is_re_entrancy
    return kept


def _write(diagnoses: Sequence[Diagnosis], examined: Sequence[str], output: DocumentOutput) -> None:
    if output == "json":
        put(json_report(diagnoses, examined) + "\n")
        return

    for line in text_report(diagnoses, examined):
        put(line + "\n")
