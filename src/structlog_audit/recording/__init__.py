"""The path of an event from a log record to the target.

Internal to the library: the public names are those of `structlog_audit`.
"""
