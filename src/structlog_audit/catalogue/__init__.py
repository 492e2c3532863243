"""The operations that source code declares, and how a trail compares with them.

`catalogue` reads source files without importing or executing them. `compare` checks the events of a trail against the result.
"""

from structlog_audit.catalogue.declarations import Declaration
from structlog_audit.catalogue.inventory import MOST_UNDECLARED, Catalogue, Comparison, Unread, catalogue, compare

__all__ = ["MOST_UNDECLARED", "Catalogue", "Comparison", "Declaration", "Unread", "catalogue", "compare"]
