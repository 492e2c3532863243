"""Alerts by rules over sliding windows, for events as they are recorded."""

from structlog_audit.monitoring.alerts import Alert
from structlog_audit.monitoring.monitor import Monitor, replay
from structlog_audit.monitoring.rules import DEFAULT_RULES, Rule, load_rules
from structlog_audit.monitoring.working_hours import WorkingHours

__all__ = ["DEFAULT_RULES", "Alert", "Monitor", "Rule", "WorkingHours", "load_rules", "replay"]
