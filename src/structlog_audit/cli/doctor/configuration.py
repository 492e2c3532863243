"""What may be wrong with a configuration of logging, as it stands after it was applied.

Beyond `AuditHandler.check`, which knows what mutes the events of a handler, this knows what handlers do to each other and to
their files, and what a log shipper would trip over.
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

from structlog_audit.cli.doctor.findings import Finding, of_check
from structlog_audit.cli.options import Severity
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.logger_tree import all_loggers, propagation_path

SMALLEST_SEGMENT = 1_000_000
"""Bytes. At full speed rsyslog lost events between segments of 60 kB, and none between segments of 2 MB (measured)."""

LONGEST_LINE = 32_768
"""Bytes. Fluent Bit drops a whole file for a line longer than its buffer, which has 32 KiB by default."""

_NO_SUFFIX = re.compile(r"(\.(\d+|gz|zst|bz2|old|bak))?", re.IGNORECASE)

Said = tuple[str, Severity, str, str]


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration that was applied: where it is from, itself, its handlers by name, and where their files are below."""

    given: str
    config: Mapping[str, Any]
    handlers: Mapping[str, Any]
    folder: str

    def audits(self) -> list[AuditHandler]:
        """The audit handlers, attached or not."""
        attached = [handler for logger in all_loggers() for handler in logger.handlers]
        both = [*(handler for handler in self.handlers.values()), *attached]
        return list(dict.fromkeys(handler for handler in both if isinstance(handler, AuditHandler)))

    def name_of(self, handler: logging.Handler | None) -> str:
        """How the configuration calls *handler*."""
        for name, named in self.handlers.items():
            if named is handler:
                return f"handler {name!r}"
        for audit in self.audits():
            if audit.target is handler:
                return f"the target of {self.name_of(audit)}"
        return f"a {type(handler).__name__}"

    def files(self) -> dict[str, list[logging.Handler]]:
        """The handlers that write to a file, by its true path."""
        found: defaultdict[str, list[logging.Handler]] = defaultdict(list)
        everything = [*self.handlers.values(), *(audit.target for audit in self.audits())]
        for handler in dict.fromkeys(everything):
            if isinstance(handler, logging.FileHandler):
                found[os.path.realpath(self.path_of(handler))].append(handler)
        return found

    def path_of(self, handler: logging.FileHandler) -> str:
        """Where the file of *handler* lies when it is not tried."""
        return handler.baseFilename.removeprefix(self.folder)

    def trails(self) -> list[str]:
        """The trails of the audit handlers."""
        targets = (audit.target for audit in self.audits())
        return [self.path_of(target) for target in targets if isinstance(target, AuditFileHandler)]


def looks(configured: Configured) -> Iterator[Finding]:
    """Everything that is to be found about *configured*."""
    where = configured.given
    for audit in configured.audits():
        for found in audit.check():
            if found.code != "disk":  # that of the temporary folder
                yield of_check(found, f"{where}: {configured.name_of(audit)}")
    for look in (_of_itself, _of_audits, _of_targets, _of_files, _of_names, _of_others):
        for code, severity, message, fix in look(configured):
            yield Finding(code, severity, where, message, fix)


def _of_itself(configured: Configured) -> Iterator[Said]:
    config = configured.config
    if not configured.audits():
        fix = 'give one to a logger: {"class": "structlog_audit.AuditHandler", "filename": "/var/log/app/audit.jsonl"}'
        yield "no-audit-handler", Severity.ERROR, "there is no AuditHandler in it, so no event is recorded", fix
    if config.get("disable_existing_loggers", True) and not config.get("incremental"):
        at_root = any(isinstance(handler, AuditHandler) for handler in logging.getLogger().handlers)
        severity = Severity.WARNING if at_root else Severity.NOTE
        message = "it disables the loggers that exist already and that it does not mention: their events are dropped"
        yield "existing-loggers", severity, message, 'say "disable_existing_loggers": False'


def _of_audits(configured: Configured) -> Iterator[Said]:
    for audit in configured.audits():
        name = configured.name_of(audit)
        if audit._max_event_bytes > LONGEST_LINE:
            length = audit._max_event_bytes
            message = f"{name}: max_event_bytes={length}; Fluent Bit drops a file for a line over {LONGEST_LINE}"
            fix = "leave out max_event_bytes, or set Skip_Long_Lines and Buffer_Max_Size there"
            yield "long-lines", Severity.WARNING, message, fix
        if audit.on_error == "retry" and audit._max_pending == 0 and audit.target is not None:
            message = f"{name}: with max_pending=0 every event of an outage is lost"
            yield "no-pending", Severity.WARNING, message, "leave out max_pending"
        if audit.redactor is None:
            message = f"{name}: with redactor=None passwords and tokens are written as they come"
            yield "unredacted", Severity.NOTE, message, "leave out redactor for the default one"
        if audit.target is None:
            message = f"{name} has neither target nor filename: events are in memory only, and gone with the process"
            yield "memory-only", Severity.WARNING, message, "give it a filename"
        for logger in all_loggers():
            if audit in logger.handlers:
                yield from _of_siblings(configured, audit, logger)


def _of_siblings(configured: Configured, audit: AuditHandler, logger: logging.Logger) -> Iterator[Said]:
    """What else gets the events of *audit* on *logger*."""
    others = [handler for at in propagation_path(logger) for handler in at.handlers if handler is not audit]
    if audit.target in others:
        names = f"{configured.name_of(audit.target)} is the target of {configured.name_of(audit)}"
        message = f"{names}, and events of logger {logger.name!r} reach it directly too: they come twice"
        yield "twice", Severity.ERROR, message, "take it off the loggers"
    seeing = [at for at in others if at is not audit.target and not isinstance(at, (AuditHandler, logging.NullHandler))]
    if seeing:
        names = ", ".join(map(configured.name_of, seeing))
        message = f"logger {logger.name!r} leads to {names} too: events get there before they are redacted"
        fix = f'set "propagate": False on {logger.name!r}, or give those handlers a filter, if that is not meant'
        yield "clear-values", Severity.NOTE, message, fix


def _of_targets(configured: Configured) -> Iterator[Said]:
    for audit in configured.audits():
        target, name = audit.target, configured.name_of(audit.target)
        fix = "make it a structlog_audit.AuditFileHandler"
        if isinstance(target, AuditFileHandler):
            yield from _of_trail(target, name)
            continue
        if isinstance(target, (logging.handlers.RotatingFileHandler, logging.handlers.TimedRotatingFileHandler)):
            message = f"{name}: when several processes write, a {type(target).__name__} loses events at every rollover"
            yield "several-processes", Severity.WARNING, message, fix
            if target.backupCount:
                message = (
                    f"{name}: it keeps {target.backupCount} old files and deletes what is older, without a record of it"
                )
                yield "deletes", Severity.WARNING, message, fix
        if isinstance(target, logging.FileHandler) and "w" in target.mode:
            message = f"{name}: mode {target.mode!r} empties the file at every start"
            yield "truncates", Severity.ERROR, message, f"{fix}, or leave out the mode"


def _of_trail(target: AuditFileHandler, name: str) -> Iterator[Said]:
    if target.maxBytes == 0:
        message = f"{name}: with maxBytes=0 the file never rolls over, and nothing can be archived or let go"
        yield "one-segment", Severity.NOTE, message, "leave out maxBytes"
    elif target.maxBytes < SMALLEST_SEGMENT:
        message = f"{name}: segments of {target.maxBytes} bytes roll over faster than a log shipper follows"
        yield "small-segments", Severity.WARNING, message, "set maxBytes to 50_000_000, or at least 2_000_000"
    if target.syncs:
        message = f"{name}: every event waits for the disk"
        yield "fsync", Severity.NOTE, message, "mean it; callers that wait together share an fsync"


def _of_files(configured: Configured) -> Iterator[Said]:
    for path, handlers in configured.files().items():
        names = [configured.name_of(handler) for handler in handlers]
        if len(handlers) > 1:
            message = f"{' and '.join(names)} write to one file, {path}: they rotate it under each other"
            yield "shared-file", Severity.ERROR, message, "give each a file of its own"
        if any(isinstance(handler, AuditFileHandler) for handler in handlers):
            suffix = os.path.splitext(path)[1]
            if _NO_SUFFIX.fullmatch(suffix):
                message = f"{names[0]}: a shipper that reads {os.path.basename(path)}* reads rolled segments twice"
                fix = "call it audit.jsonl, and have the shipper read *.jsonl"
                yield "shipper-glob", Severity.WARNING, message, fix
    for handler in configured.handlers.values():
        if isinstance(handler, AuditFileHandler) and handler not in [audit.target for audit in configured.audits()]:
            message = f"{configured.name_of(handler)} has no AuditHandler before it: what it can't write is lost"
            yield "bare-file", Severity.WARNING, message, "chain it: an AuditHandler with this handler as its target"


def _of_names(configured: Configured) -> Iterator[Said]:
    for name, spec in _specs(configured.config):
        filename = spec.get("filename")
        if isinstance(filename, (str, os.PathLike)) and not os.path.isabs(filename) and "://" not in str(filename):
            message = f"handler {name!r}: {str(filename)!r} lies wherever the process is started"
            yield "relative-path", Severity.WARNING, message, "give the whole path"


def _specs(config: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name, spec in config.get("handlers", {}).items():
        for described in (spec, spec.get("target") if isinstance(spec, Mapping) else None):
            if isinstance(described, Mapping):
                yield name, described


def _of_others(configured: Configured) -> Iterator[Said]:
    homes = {logger.name for logger in all_loggers() if any(isinstance(h, AuditHandler) for h in logger.handlers)}
    if homes and not homes & {"audit", "root"}:
        name = sorted(homes)[0]
        message = f"the audit handler is on logger {name!r}, and get_audit_logger() uses 'audit'"
        yield "logger-name", Severity.NOTE, message, f"call get_audit_logger({name!r})"
