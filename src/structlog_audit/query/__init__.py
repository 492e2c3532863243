"""Filters, statistics and the methods that every source of events has.

Internal to the library: the public names are those of `structlog_audit`.
"""
