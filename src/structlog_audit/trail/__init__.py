"""The files of one audit log: their names, writing and reading.

Internal to the library: the public names are those of `structlog_audit`.
"""
