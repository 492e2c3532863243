"""The bounded, indexed buffer of one handler.

Internal to the library: the public names are those of `structlog_audit`.
"""
