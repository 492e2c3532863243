"""``shipper``: configurations of log shippers, on stdout.

The configuration is the text to save as it stands; nothing else is written to stdout with it.
"""

from __future__ import annotations

from structlog_audit.cli.exit_codes import Exit, UsageError, did_you_mean
from structlog_audit.cli.terminal import put, put_line
from structlog_audit.exceptions import AuditError
from structlog_audit.shippers import SHIPPERS, configuration


def shipper(name: str | None, trail: str | None, to: str | None) -> Exit:
    """Write the configuration of the shipper called *name* for the trail at *trail*, or the names that there are."""
    if name is None:
        if trail is not None or to is not None:
            raise UsageError(f"which shipper? There are: {', '.join(SHIPPERS)}")
        _list()
        return Exit.DONE
    if name not in SHIPPERS:
        raise UsageError(f"unknown shipper {name!r}.{did_you_mean(name, SHIPPERS)} There are: {', '.join(SHIPPERS)}")
    if trail is None:
        raise UsageError(f"give the trail that {name} is to ship: --trail logs/audit.jsonl")
    if trail == "-":
        raise UsageError("a shipper needs files: give the path of a trail")
    try:
        made = configuration(name, trail, to=to)
    except AuditError as error:
        raise UsageError(f"--{error}") from None
    put(made)
    return Exit.DONE


def _list() -> None:
    """The names, and which of the configurations our tests run."""
    wide = max(map(len, SHIPPERS))
    for name, known in SHIPPERS.items():
        put_line(f"{name:{wide}}  {'run by our tests' if known.is_run else 'not run by our tests'}  {known.title}")
