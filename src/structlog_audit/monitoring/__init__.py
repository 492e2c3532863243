"""Alerts by rules over sliding windows, for events as they are recorded."""

from structlog_audit.monitoring.alerts import Alert
from structlog_audit.monitoring.monitor import Monitor, replay
from structlog_audit.monitoring.rules import DEFAULT_RULES, Rule, load_rules

__all__ = ["DEFAULT_RULES", "Alert", "Monitor", "Rule", "load_rules", "replay"]
