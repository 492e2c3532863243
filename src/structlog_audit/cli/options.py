"""The values that options choose from."""

from enum import StrEnum


class Output(StrEnum):
    """The outputs of events."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class AlertOutput(StrEnum):
    """The outputs of alerts."""

    TEXT = "text"
    JSONL = "jsonl"


class Listing(StrEnum):
    """The outputs of the catalogue."""

    MARKDOWN = "markdown"
    JSON = "json"


class Format(StrEnum):
    """The outputs of the doctor."""

    TEXT = "text"
    JSON = "json"


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    """Events are lost or never recorded, or will be."""

    WARNING = "warning"
    """Events may be lost, delayed or cut, or be read or changed by others."""

    NOTE = "note"
    """Nothing is wrong; somebody should know."""
