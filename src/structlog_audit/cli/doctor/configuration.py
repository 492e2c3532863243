"""Checks of a logging configuration after it was applied.

`AuditHandler.check` reports settings that drop the events of one handler. The checks here cover the effects of handlers on each
other and on their files, and problems for log shippers.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from structlog_audit.cli.choices import Severity
from structlog_audit.cli.doctor.diagnosis import (
    Diagnosis,
    RatedFinding,
    error,
    from_health_check,
    located,
    note,
    warning,
)
from structlog_audit.cli.doctor.filesystem import check_vault
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.health_checks import Finding
from structlog_audit.recording.logger_tree import all_loggers, propagation_path

MIN_SEGMENT_BYTES = 1_000_000
"""At full speed rsyslog lost events between segments of 60 kB, and none between segments of 2 MB (measured)."""

MAX_SHIPPED_LINE_BYTES = 32_768
"""Fluent Bit skips a whole file for a line longer than its buffer, which has 32 KiB by default."""

_SHIPPER_SUFFIX = re.compile(r"(\.(\d+|gz|zst|bz2|old|bak))?", re.IGNORECASE)
"""Suffixes with which a shipper needs the pattern ``name*``, which also matches rolled segments."""

_SHARED_BY_ROTATION = (logging.handlers.RotatingFileHandler, logging.handlers.TimedRotatingFileHandler)


@dataclass(frozen=True, slots=True)
class AppliedConfiguration:
    """A configuration that was applied in a dry run.

    Args:
        given: The argument that named it.
        config: The configuration as it was loaded.
        handlers: Its handlers by name.
        folder: The folder below which the files of its handlers were created.
    """

    given: str
    config: Mapping[str, Any]
    handlers: Mapping[str, Any]
    folder: str

    def find_audit_handlers(self) -> list[AuditHandler]:
        """Return the audit handlers of the configuration and of all loggers, each once."""
        candidates = list(self.handlers.values())
        for logger in all_loggers():
            candidates += logger.handlers

        find_audit_handlers = [handler for handler in candidates if isinstance(handler, AuditHandler)]
        return list(dict.fromkeys(find_audit_handlers))

    def name_of(self, handler: logging.Handler | None) -> str:
        """Return a description of *handler* for messages: its name in the configuration, or its role."""
        for name, named in self.handlers.items():
            if named is handler:
                return f"handler {name!r}"

        for audit in self.find_audit_handlers():
            if audit.target is handler:
                return f"the target of {self.name_of(audit)}"

        return f"a {type(handler).__name__}"

    def file_handlers(self) -> dict[str, list[logging.Handler]]:
        """Return the handlers that write to files, by the real path of the file."""
        targets = [audit.target for audit in self.find_audit_handlers()]
        handlers = dict.fromkeys([*self.handlers.values(), *targets])

        by_path: defaultdict[str, list[logging.Handler]] = defaultdict(list)
        for handler in handlers:
            if not isinstance(handler, logging.FileHandler):
                continue

            path = os.path.realpath(self.path_of(handler))
            by_path[path].append(handler)

        return by_path

    def path_of(self, handler: logging.FileHandler) -> str:
        """Return the path of the file of *handler* outside of the dry run."""
        return handler.baseFilename.removeprefix(self.folder)

    def trails(self) -> list[str]:
        """Return the paths of the trails of the audit handlers."""
        targets = [audit.target for audit in self.find_audit_handlers()]
        return [self.path_of(target) for target in targets if isinstance(target, AuditFileHandler)]


def check_configuration(applied: AppliedConfiguration) -> Iterator[Diagnosis]:
    """Yield diagnoses of a configuration that is in force in this process."""
    yield from _health_checks(applied)

    checks = (
        _check_whole(applied),
        _check_audit_handlers(applied),
        _check_targets(applied),
        _check_files(applied),
        _check_bare_handlers(applied),
        _check_paths(applied),
        _check_vaults(applied.config),
        _check_logger_name(applied),
    )
    for check in checks:
        yield from located(applied.given, check)


def _health_checks(applied: AppliedConfiguration) -> Iterator[Diagnosis]:
    for audit in applied.find_audit_handlers():
        where = f"{applied.given}: {applied.name_of(audit)}"
        for finding in audit.check():
            # The files are in a temporary folder. Its disk is irrelevant.
            if finding.code != "disk":
                yield from_health_check(where, finding)


def _check_whole(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    config = applied.config
    if not applied.find_audit_handlers():
        fix = 'add one to a logger: {"class": "structlog_audit.AuditHandler", "filename": "/var/log/app/audit.jsonl"}'
        yield error("no-audit-handler", "the configuration has no AuditHandler, so no event is recorded", fix)

    # dictConfig disables existing loggers by default, except for an incremental configuration.
    if config.get("disable_existing_loggers", True) and not config.get("incremental"):
        # Events of all loggers were to reach a handler at the root.
        is_at_root = any(isinstance(handler, AuditHandler) for handler in logging.getLogger().handlers)
        severity = Severity.WARNING if is_at_root else Severity.NOTE
        message = "existing loggers that the configuration does not mention are disabled, and their events dropped"
        yield severity, Finding("existing-loggers", message, 'set "disable_existing_loggers": False')


def _check_audit_handlers(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    for audit in applied.find_audit_handlers():
        yield from _check_settings(audit, applied.name_of(audit))
        for logger in all_loggers():
            if audit in logger.handlers:
                yield from _check_other_handlers(applied, audit, logger)


def _check_settings(audit: AuditHandler, name: str) -> Iterator[RatedFinding]:
    if audit._max_event_bytes > MAX_SHIPPED_LINE_BYTES:
        setting = f"max_event_bytes={audit._max_event_bytes}"
        message = f"{name}: {setting}, but Fluent Bit skips a file with a line over {MAX_SHIPPED_LINE_BYTES} bytes"
        fix = "remove max_event_bytes, or set Skip_Long_Lines and Buffer_Max_Size in Fluent Bit"
        yield warning("long-lines", message, fix)

    if audit.on_error == "retry" and audit._max_pending == 0 and audit.target is not None:
        message = f"{name}: with max_pending=0, all events are lost while the target fails"
        yield warning("no-pending", message, "remove max_pending to use the default")

    if audit.redactor is None:
        message = f"{name}: with redactor=None, passwords and tokens are written in clear text"
        yield note("unredacted", message, "remove redactor to use the default rules")

    if audit.target is None:
        message = f"{name} has neither target nor filename: events are only in memory, and lost when the process ends"
        yield warning("memory-only", message, "set filename")


def _check_other_handlers(
    applied: AppliedConfiguration, audit: AuditHandler, logger: logging.Logger
) -> Iterator[RatedFinding]:
    """Yield findings about handlers that receive the same events as *audit* from *logger*."""
    other_handlers = []
    for ancestor in propagation_path(logger):
        other_handlers += [handler for handler in ancestor.handlers if handler is not audit]

    # Other audit handlers redact the events themselves.
    redacting = (AuditHandler, logging.NullHandler)
    unredacted = [
        handler for handler in other_handlers if handler is not audit.target and not isinstance(handler, redacting)
    ]

    if unredacted:
        names = ", ".join(applied.name_of(handler) for handler in unredacted)
        message = f"events of logger {logger.name!r} also reach {names}, without redaction"
        fix = f'if this is not intended, set "propagate": False on {logger.name!r}, or add a filter to those handlers'
        yield note("clear-values", message, fix)


def _check_targets(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    for audit in applied.find_audit_handlers():
        name = applied.name_of(audit.target)
        if isinstance(audit.target, AuditFileHandler):
            yield from _check_audit_file_handler(audit.target, name)
        elif isinstance(audit.target, logging.FileHandler):
            yield from _check_file_handler(audit.target, name)


def _check_audit_file_handler(target: AuditFileHandler, name: str) -> Iterator[RatedFinding]:
    if target.maxBytes == 0:
        message = f"{name}: with maxBytes=0 the file never rolls over, so no segment can be archived or deleted"
        yield note("one-segment", message, "remove maxBytes to use the default")
    elif target.maxBytes < MIN_SEGMENT_BYTES:
        message = f"{name}: segments of {target.maxBytes} bytes can roll over faster than a log shipper reads them"
        yield warning("small-segments", message, "set maxBytes to 50_000_000, or at least 2_000_000")

    if target.syncs:
        message = f'{name}: with durability="fsync", every event waits for the disk'
        fix = "keep it if events must survive a power failure; concurrent callers share an fsync"
        yield note("fsync", message, fix)


def _check_file_handler(target: logging.FileHandler, name: str) -> Iterator[RatedFinding]:
    fix = "use a structlog_audit.AuditFileHandler"

    if isinstance(target, _SHARED_BY_ROTATION):
        kind = type(target).__name__
        message = f"{name}: when several processes write, a {kind} loses events at every rollover"
        yield warning("several-processes", message, fix)
        if target.backupCount:
            message = f"{name} keeps {target.backupCount} old files and deletes older ones without recording it"
            yield warning("deletes", message, fix)

    if "w" in target.mode:
        message = f"{name}: mode {target.mode!r} empties the file at every start"
        yield error("truncates", message, f"{fix}, or remove mode")


def _check_files(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    for path, handlers in applied.file_handlers().items():
        names = [applied.name_of(handler) for handler in handlers]

        if len(handlers) > 1:
            writers = " and ".join(names)
            message = f"{writers} write to the same file, {path}, and roll it over independently"
            yield error("shared-file", message, "give each handler its own file")

        is_trail = any(isinstance(handler, AuditFileHandler) for handler in handlers)
        suffix = os.path.splitext(path)[1]
        if is_trail and _SHIPPER_SUFFIX.fullmatch(suffix):
            pattern = f"{os.path.basename(path)}*"
            message = f"{names[0]}: a log shipper that reads {pattern} reads rolled segments twice"
            yield warning("shipper-glob", message, "name the file audit.jsonl, and have the shipper read *.jsonl")


def _check_bare_handlers(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    targets = [audit.target for audit in applied.find_audit_handlers()]

    for handler in applied.handlers.values():
        if not isinstance(handler, AuditFileHandler) or handler in targets:
            continue

        name = applied.name_of(handler)
        message = f"{name} is not the target of an AuditHandler: events that it cannot write are lost"
        yield warning("bare-file", message, "make it the target of an AuditHandler")


def _check_paths(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    for name, spec in _handler_specs(applied.config):
        filename = spec.get("filename")
        if not isinstance(filename, (str, os.PathLike)):
            continue

        # A reference such as cfg://path is not a path.
        text = str(filename)
        if not os.path.isabs(filename) and "://" not in text:
            message = f"handler {name!r}: {text!r} is relative to the directory in which the process starts"
            yield warning("relative-path", message, "use an absolute path")


def _check_vaults(config: Mapping[str, Any]) -> Iterator[RatedFinding]:
    """Yield findings about the vaults that *config* names, which need not be in force."""
    redactors = [spec.get("redactor") for _, spec in _handler_specs(config)]
    vaults = [redactor.get("vault") for redactor in redactors if isinstance(redactor, Mapping)]
    paths = {os.path.abspath(vault) for vault in vaults if isinstance(vault, (str, os.PathLike))}
    for path in sorted(paths):
        yield from check_vault(path)


def _handler_specs(config: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the description of each handler, and of each target described within one."""
    for name, spec in config.get("handlers", {}).items():
        if not isinstance(spec, Mapping):
            continue

        yield name, spec
        if isinstance(spec.get("target"), Mapping):
            yield name, spec["target"]


def _check_logger_name(applied: AppliedConfiguration) -> Iterator[RatedFinding]:
    names = set()
    for logger in all_loggers():
        if any(isinstance(handler, AuditHandler) for handler in logger.handlers):
            names.add(logger.name)

    if names and not names & {"audit", "root"}:
        name = min(names)
        message = f"the audit handler is on logger {name!r}, but get_audit_logger() uses 'audit'"
        yield note("logger-name", message, f"call get_audit_logger({name!r})")
