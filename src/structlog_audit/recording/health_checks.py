"""Everything in this process that would mute or lose the events of one handler.

Each finding has a code, says in words what happens, and how to mend it. These are the ordinary settings of `logging` that
drop an event without a word; an `AuditHandler` can't prevent them, but it can say so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import msgspec

from structlog_audit.recording.logger_tree import all_loggers, propagation_path, reachable_handlers, uses_queue

RE_ENTRANCY_GUARD = (3, 13, 4)
"""Since this version a logger discards what it is given while it handles a record in the same thread (gh-91555)."""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong: a ``code`` to test for, a ``message`` to read, and the ``fix``."""

    code: str
    message: str
    fix: str


def muting_findings(handler: logging.Handler, target: logging.Handler | None) -> Iterator[Finding]:
    """What would keep events of level INFO from *handler*, or from its *target*."""
    loggers = all_loggers()
    homes = [logger for logger in loggers if handler in reachable_handlers([logger])]
    if not homes:
        yield Finding(
            "detached",
            "no logger has this handler, so no event reaches it",
            "attach it in the last configuration that runs; basicConfig(force=True) and dictConfig replace handlers",
        )
    if logging.root.manager.disable >= logging.INFO:
        level = logging.getLevelName(logging.root.manager.disable)
        yield Finding(
            "logging-disable", f"logging.disable({level}) is in force", "call logging.disable(logging.NOTSET)"
        )
    for logger in homes:
        yield from _of_logger(logger)
        yield from _of_children(logger, handler, loggers)
    yield from _of_handler("handler", handler)
    if target is not None:
        yield from _of_handler("target", target)
    if sys.version_info >= RE_ENTRANCY_GUARD:
        yield Finding(
            "re-entrancy",
            "this Python discards logging calls made while a record is handled: in filters, __str__, signal handlers",
            "record such events through get_audit_logger, which goes round that, not through logging.getLogger",
        )


def _of_logger(logger: logging.Logger) -> Iterator[Finding]:
    name = repr(logger.name)
    if logger.disabled:
        yield Finding(
            "disabled",
            f"logger {name} is disabled, as dictConfig and fileConfig do to loggers they do not mention",
            'say "disable_existing_loggers": False, or mention the logger',
        )
    if logger.getEffectiveLevel() > logging.INFO:
        level = logging.getLevelName(logger.getEffectiveLevel())
        whose = "" if logger.level else ", which it has from its parent"
        yield Finding("level", f"logger {name} drops events below {level}{whose}", 'set its level to "INFO"')
    if logger.filters:
        yield Finding("logger-filter", f"logger {name} has filters, which may drop events", "remove them from it")
    if uses_queue(logger, logging.INFO):
        yield Finding(
            "queue",
            f"logger {name} hands events over to a queue: they are recorded later, or lost if the process dies",
            "attach the audit handler to the logger itself; keep the queue for handlers that may lose something",
        )


def _of_children(home: logging.Logger, handler: logging.Handler, loggers: list[logging.Logger]) -> Iterator[Finding]:
    """The loggers below *home* whose records do not get there."""
    prefix = "" if home is logging.root else f"{home.name}."
    for logger in loggers:
        if logger is home or not logger.name.startswith(prefix):
            continue
        name = repr(logger.name)
        if handler not in reachable_handlers(propagation_path(logger)):
            yield Finding("propagate", f"logger {name} does not propagate to {home.name!r}", "let it propagate")
        elif prefix and logger.level > logging.INFO:
            level = logging.getLevelName(logger.level)
            yield Finding("level", f"logger {name} drops events below {level}", 'set its level to "INFO"')
        elif prefix and logger.disabled:
            yield Finding("disabled", f"logger {name} is disabled", 'say "disable_existing_loggers": False')


def _of_handler(what: str, handler: logging.Handler) -> Iterator[Finding]:
    if handler.level > logging.INFO:
        level = logging.getLevelName(handler.level)
        yield Finding(f"{what}-level", f"the {what} drops events below {level}", f"leave out the level of the {what}")
    if handler.filters:
        yield Finding(f"{what}-filter", f"the {what} has filters, which may drop events", "remove them from it")
