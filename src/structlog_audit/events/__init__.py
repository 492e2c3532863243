"""Values: events, their fields, their ids and their JSON.

Internal to the library: the public names are those of `structlog_audit`.
"""
