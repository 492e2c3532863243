"""Compliance reports: what the events of a time amount to, as data, JSON, Markdown and HTML.

`compliance_report` makes a `Report` of anything that answers questions about events. HTML needs the extra ``reports``; the
other forms need nothing.
"""

from structlog_audit.reports.report import Report, compliance_report

__all__ = ["Report", "compliance_report"]
