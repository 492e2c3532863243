"""The values that options choose from. This module imports nothing, so that doctor's processes stay small."""

from enum import StrEnum


class Output(StrEnum):
    """The output formats of events."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class StatisticsOutput(StrEnum):
    """The output formats of statistics."""

    TABLE = "table"
    JSON = "json"


class AlertOutput(StrEnum):
    """The output formats of alerts."""

    TEXT = "text"
    JSONL = "jsonl"


class CatalogueOutput(StrEnum):
    """The output formats of the catalogue."""

    MARKDOWN = "markdown"
    JSON = "json"


class ReportOutput(StrEnum):
    """The output formats of a verification."""

    TEXT = "text"
    JSON = "json"


class Format(StrEnum):
    """The output formats of the doctor."""

    TEXT = "text"
    JSON = "json"


class Severity(StrEnum):
    """The severity of a finding, the worst first."""

    ERROR = "error"
    """Events are lost or never recorded, or will be."""

    WARNING = "warning"
    """Events may be lost, delayed or truncated, or be read or changed by other users."""

    NOTE = "note"
    """Nothing is wrong, but the operator should know."""
