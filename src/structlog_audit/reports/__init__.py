"""Compliance reports: a summary of the events of a period, as data, JSON, Markdown and HTML.

`compliance_report` makes a `Report` from any source of events. HTML needs the extra ``reports``; the other forms need no
extra.
"""

from structlog_audit.reports.comparison import ComparisonReport, comparison_report
from structlog_audit.reports.person import PersonReport, person_report
from structlog_audit.reports.report import Report, compliance_report

__all__ = [
    "ComparisonReport",
    "PersonReport",
    "Report",
    "comparison_report",
    "compliance_report",
    "person_report",
]
