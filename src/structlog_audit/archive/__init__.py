"""The archive of an audit trail: exact Parquet files with a catalogue of their own, for years of events of many hosts.

`compact` moves closed segments into an archive, and `open_archive` answers queries from it, together with the live trail.
`show`, `verify`, `restore`, `merge`, `prune` and `gc` are its upkeep. Needs the extra ``archive``.
"""

from structlog_audit.archive.compaction import Compacted, compact
from structlog_audit.archive.maintenance import Collected, Merged, Summary, gc, merge, prune, show
from structlog_audit.archive.opening import open_archive
from structlog_audit.archive.restoration import Finding, Restored, Verified, restore, verify

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
