"""The values that options choose from. This module imports nothing, so that doctor's processes stay small."""

from enum import StrEnum
from typing import Literal

Output = Literal["text", "json", "jsonl", "csv"]
"""The output formats: for people, one JSON document, one JSON object a line, a table for spreadsheets.

Every command has those of them that its data can have.
"""

StreamOutput = Literal["text", "json", "jsonl"]
"""The output formats of data that has no columns."""

DocumentOutput = Literal["text", "json"]
"""The output formats of data that is one document."""

ReportOutput = Literal["text", "json", "html"]
"""The output formats of a report."""


class Severity(StrEnum):
    """The severity of a finding, the worst first."""

    ERROR = "error"
    """Events are lost or never recorded, or will be."""

    WARNING = "warning"
    """Events may be lost, delayed or truncated, or be read or changed by other users."""

    NOTE = "note"
    """Nothing is wrong, but the operator should know."""
