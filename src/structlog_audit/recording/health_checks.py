"""Checks for settings of `logging` in this process that would drop events of one handler.

`logging` drops events silently with ordinary settings: levels, filters, disabled loggers, propagation. An `AuditHandler` can't
prevent that, so its ``check()`` reports these settings as findings, each with its fix.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import msgspec

from structlog_audit.recording.logger_tree import (
    adapters_of,
    all_loggers,
    discards_nested_records,
    propagation_path,
    reachable_handlers,
    replaces_extra,
    uses_queue,
)
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.redaction.subjects import NO_SUBJECT, NOT_AN_IDENTITY, UNAVAILABLE

UNKNOWN_STATUS_FIX = "pass SUCCESS, FAILURE or PARTIAL as status, and a resource's own state under another name"
"""The fix for events whose status states neither success nor failure."""

_MASKED_FIXES = {
    NO_SUBJECT: "log the user_id with these events, or name the subject, as in 'erasable:metadata.customer_id'",
    NOT_AN_IDENTITY: "use the mode 'subject' only for values that identify a person: text or an integer",
    UNAVAILABLE: "make the vault writable, with free disk space, and end the process that locks it",
}

_KEEP_LOGGERS = 'set "disable_existing_loggers": False'


class Finding(msgspec.Struct, frozen=True):
    """A problem that a health check found.

    Attributes:
        code: Identifies the kind of problem, for programs.
        message: Describes the problem, for people.
        fix: Describes how to solve it.
    """

    code: str
    message: str
    fix: str


Check = Callable[[logging.Handler], Iterator[Finding]]
"""Yields the findings about one audit handler."""

_further_checks: list[Check] = []


def add_check(check: Check) -> None:
    """Let `muting_findings` yield the findings of *check* too: those of an entry point about its settings."""
    _further_checks.append(check)


def muting_findings(handler: logging.Handler, target: logging.Handler | None) -> Iterator[Finding]:
    """Yield a finding for each setting that would keep events of level INFO from *handler* or from its *target*.

    Settings by which it would record an event twice or in part, or records of others as events, are among them.
    """
    loggers = all_loggers()
    audit_loggers = [logger for logger in loggers if handler in reachable_handlers([logger])]
    if not audit_loggers:
        yield Finding(
            "detached",
            "no logger has this handler, so no event reaches it",
            "attach it in the last configuration that runs; basicConfig(force=True) and dictConfig replace handlers",
        )

    disabled_level = logging.root.manager.disable
    if disabled_level >= logging.INFO:
        yield Finding(
            "logging-disable",
            f"logging.disable({logging.getLevelName(disabled_level)}) is in force",
            "call logging.disable(logging.NOTSET)",
        )

    for logger in audit_loggers:
        yield from _logger_findings(logger, handler)
        yield from _descendant_findings(logger, handler, loggers)

    yield from _duplicate_findings(handler, target, loggers)
    yield from _adapter_findings(loggers, handler)
    if logging.root in audit_loggers:
        yield Finding(
            "root",
            "the handler is on the root logger: the log records of all libraries become events",
            'attach it to a logger of its own, such as "audit"',
        )

    for check in _further_checks:
        yield from check(handler)

    yield from _handler_findings("handler", handler)
    if target is not None:
        yield from _handler_findings("target", target)

    if any(map(discards_nested_records, audit_loggers)):
        yield Finding(
            "re-entrancy",
            "this Python discards logging calls made while a record is handled: in filters, __str__, signal handlers",
            "record such events through get_audit_logger, which bypasses that, and not through logging.getLogger",
        )


def redaction_findings(redactor: Redactor | None) -> Iterator[Finding]:
    """Yield a finding for each reason for which *redactor* masked values that it should have encrypted."""
    vault = None if redactor is None else redactor.vault
    if vault is None:
        return
    for reason, count in vault.counts.items():
        message = f"{count} values were masked instead of encrypted: {reason} (vault {vault.path})"
        yield Finding("vault", message, _MASKED_FIXES[reason])


def slow_call_finding(handler: logging.Handler, logger: logging.Logger, seconds: float) -> Finding:
    """Return the finding that an awaited event on *logger* held the event loop for *seconds*."""
    others = [repr(other) for other in _handlers_of(logger) if other is not handler]
    message = f"an awaited event on logger {logger.name!r} held the event loop for {seconds * 1_000:.0f} ms"
    if not others:
        return Finding("slow-call", message, "check the filters of the logger, and the disk of the trail")

    fix = "put the slow ones behind a QueueHandler, and leave the audit handler on the logger"
    return Finding("slow-call", f"{message}: it has other handlers, {', '.join(others)}", fix)


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that a record of *logger* reaches at once, without a queue."""
    for ancestor in propagation_path(logger):
        yield from ancestor.handlers


def _logger_findings(logger: logging.Logger, handler: logging.Handler) -> Iterator[Finding]:
    """Yield the findings of a logger that *handler* is attached to."""
    name = repr(logger.name)

    if logger.disabled:
        yield Finding(
            "disabled",
            f"logger {name} is disabled, as dictConfig and fileConfig do to loggers they do not mention",
            f"{_KEEP_LOGGERS}, or mention the logger",
        )

    level = logger.getEffectiveLevel()
    if level > logging.INFO:
        origin = "" if logger.level else ", inherited from its parent"
        yield _level_finding(name, level, origin)

    if logger.filters:
        yield Finding("logger-filter", f"logger {name} has filters, which may drop events", "remove them from it")

    if uses_queue(logger, logging.INFO) and handler not in _handlers_of(logger):
        yield Finding(
            "queue",
            f"logger {name} passes events to a queue: they are recorded later, or lost if the process dies",
            "attach the audit handler to the logger itself; keep the queue for handlers that may lose events",
        )


def _descendant_findings(
    audit_logger: logging.Logger, handler: logging.Handler, loggers: list[logging.Logger]
) -> Iterator[Finding]:
    """Yield the findings of the loggers below *audit_logger* that do not pass their records to it."""
    is_root = audit_logger is logging.root
    prefix = "" if is_root else f"{audit_logger.name}."

    for logger in loggers:
        if logger is audit_logger or not logger.name.startswith(prefix):
            continue

        name = repr(logger.name)
        if handler not in reachable_handlers(propagation_path(logger)):
            message = f"logger {name} does not propagate to {audit_logger.name!r}"
            yield Finding("propagate", message, "let it propagate")
        elif is_root:
            # A handler on the root gets the records of all libraries: their levels are intended.
            continue
        elif logger.level > logging.INFO:
            yield _level_finding(name, logger.level)
        elif logger.disabled:
            yield Finding("disabled", f"logger {name} is disabled", _KEEP_LOGGERS)


def _duplicate_findings(
    handler: logging.Handler, target: logging.Handler | None, loggers: list[logging.Logger]
) -> Iterator[Finding]:
    """Yield a finding for the first logger whose events *handler*, or its trail, gets more than once."""
    for logger in loggers:
        receivers = list(reachable_handlers(propagation_path(logger)))
        if handler not in receivers:
            continue

        if receivers.count(handler) > 1:
            message = f"events of logger {logger.name!r} reach the handler twice"
            yield Finding("recorded-twice", message, "attach it to one logger, or set propagate to False")
            return

        others = [other for other in receivers if other is not handler and _writes_to(other, target)]
        if others:
            message = f"events of logger {logger.name!r} are recorded twice: {others[0]!r} writes to the same trail"
            fix = "attach the audit handler alone, once: not its target, and not again in a script that runs again"
            yield Finding("recorded-twice", message, fix)
            return


def _writes_to(handler: logging.Handler, target: logging.Handler | None) -> bool:
    """Return whether *handler*, or the target that it has, is *target*, or writes to the same file."""
    if target is None:
        return False

    other = getattr(handler, "target", None) or handler
    if other is target:
        return True
    if not isinstance(other, logging.FileHandler) or not isinstance(target, logging.FileHandler):
        return False
    try:
        return os.path.samefile(other.baseFilename, target.baseFilename)
    except OSError:
        return os.path.realpath(other.baseFilename) == os.path.realpath(target.baseFilename)


def _adapter_findings(loggers: list[logging.Logger], handler: logging.Handler) -> Iterator[Finding]:
    """Yield a finding for each logger with a `logging.LoggerAdapter` that drops the fields of its calls.

    A handler on the root logger gets the records of all libraries; their adapters are intended.
    """
    if handler in logging.root.handlers:
        return

    audited = [logger for logger in loggers if handler in reachable_handlers(propagation_path(logger))]
    names = {adapter.logger.name for adapter in adapters_of(audited) if replaces_extra(adapter)}
    for name in sorted(names):
        message = f"a LoggerAdapter of logger {name!r} replaces the extra of each call by its own: fields are lost"
        fix = "use get_audit_logger(…).bind(…), or merge_extra=True (Python 3.13)"
        yield Finding("adapter", message, fix)


def _level_finding(name: str, level: int, origin: str = "") -> Finding:
    message = f"logger {name} drops events below {logging.getLevelName(level)}{origin}"
    return Finding("level", message, 'set its level to "INFO"')


def _handler_findings(role: str, handler: logging.Handler) -> Iterator[Finding]:
    """Yield the findings of the audit handler or its target, as the *role* states."""
    if handler.level > logging.INFO:
        level = logging.getLevelName(handler.level)
        yield Finding(f"{role}-level", f"the {role} drops events below {level}", f"remove the level of the {role}")

    if handler.filters:
        yield Finding(f"{role}-filter", f"the {role} has filters, which may drop events", "remove them from it")
