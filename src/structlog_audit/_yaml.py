"""YAML, with the optional package PyYAML."""

from __future__ import annotations

from typing import Any

from structlog_audit.exceptions import AuditValueError


def load_yaml(text: str) -> Any:
    """Return the value of the YAML document *text*, of plain types only.

    Raises:
        AuditValueError: The text is not YAML, or PyYAML is not installed.
    """
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise AuditValueError("YAML needs the package PyYAML: pip install pyyaml, or use another format") from None

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AuditValueError(str(error)) from error
