"""Writing the files of a trail.

Internal to the library: the public names are those of `structlog_audit`.
"""
