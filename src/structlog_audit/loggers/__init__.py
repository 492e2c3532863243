"""Entry points: bound logger, processor, decorators and the audit logger of the memory SDK."""
