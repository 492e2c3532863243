"""Entry points: bound logger, processor, decorators and the audit logger of the memory SDK.

Internal to the library: the public names are those of `structlog_audit`.
"""
