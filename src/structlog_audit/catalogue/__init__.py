"""The operations that code declares, and their comparison with a trail.

`catalogue` parses the source of packages without importing it. `compare` lists the differences between a catalogue and the
events of a trail.
"""

from structlog_audit.catalogue.comparison import MOST_UNDECLARED, Comparison, compare, compare_events
from structlog_audit.catalogue.declarations import Declaration
from structlog_audit.catalogue.inventory import Catalogue, Unread, catalogue

__all__ = [
    "MOST_UNDECLARED",
    "Catalogue",
    "Comparison",
    "Declaration",
    "Unread",
    "catalogue",
    "compare",
    "compare_events",
]
