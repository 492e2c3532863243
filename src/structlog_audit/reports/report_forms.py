"""`ReportForms`: the text forms that every report has: JSON, Markdown and HTML."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import msgspec

from structlog_audit._version import check_versions
from structlog_audit.events.codec import escape
from structlog_audit.exceptions import AuditError
from structlog_audit.reports.document import Document
from structlog_audit.reports.local_times import localized
from structlog_audit.reports.markdown import render_markdown

_EXTRA = ("jinja2", "markupsafe", "pygal")
"""The modules of the extra ``reports``."""


@dataclass(frozen=True, slots=True, repr=False)
class ReportForms:
    """The data of a report, and the document that is made of it."""

    _members: dict[str, Any]

    _zone: dt.tzinfo
    """The zone of the times in documents."""

    def _document(self, members: dict[str, Any]) -> Document:
        """Return the document of *members*, the data with times of the zone."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the report as JSON text, without characters unsafe in terminals."""
        encoded = escape(msgspec.json.encode(self._members))
        return msgspec.json.format(encoded, indent=2).decode()

    def to_markdown(self) -> str:
        """Return the report as Markdown with GitHub's tables. Texts of events are escaped."""
        return render_markdown(self._document(localized(self._members, self._zone)))

    def to_html(self) -> str:
        """Return the report as one self-contained HTML document without scripts.

        Raises:
            AuditError: The extra ``reports`` is not installed.
        """
        check_versions("reports")
        # Imported lazily: needs the extra.
        try:
            from structlog_audit.reports.html import render_html
        except ModuleNotFoundError as error:
            if error.name not in _EXTRA:
                raise
            fix = "pip install 'structlog-audit[reports]'"
            raise AuditError(f"a report in HTML needs {error.name}, which is not installed: {fix}") from error

        members = localized(self._members, self._zone)
        return render_html(self._document(members), members)
