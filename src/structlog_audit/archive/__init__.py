"""The archive of an audit trail: exact Parquet files with a catalogue of their own, for years of events of many hosts.

`compact` moves closed segments into an archive, and `open_archive` answers queries from it, together with the live trail.
`show`, `verify`, `restore`, `merge`, `prune` and `gc` are its upkeep. Needs the extra ``archive``.

The modules are imported when a name is used: commands that read trails only ask whether a path is an archive.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog_audit.archive.compaction import Compacted, compact
    from structlog_audit.archive.maintenance import Collected, Merged, Summary, gc, merge, prune, show
    from structlog_audit.archive.opening import open_archive
    from structlog_audit.archive.restoration import Finding, Restored, Verified, restore, verify

_MODULES = {
    "compaction": ("Compacted", "compact"),
    "maintenance": ("Collected", "Merged", "Summary", "gc", "merge", "prune", "show"),
    "opening": ("open_archive",),
    "restoration": ("Finding", "Restored", "Verified", "restore", "verify"),
}

__all__ = [
    "Collected",
    "Compacted",
    "Finding",
    "Merged",
    "Restored",
    "Summary",
    "Verified",
    "compact",
    "gc",
    "merge",
    "open_archive",
    "prune",
    "restore",
    "show",
    "verify",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
