"""Removal of secrets from events, before memory and disk.

Internal to the library: the public names are those of `structlog_audit`.
"""
