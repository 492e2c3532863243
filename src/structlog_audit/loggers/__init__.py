"""Entry points: bound logger, processor, decorators and the logger of the memory SDK."""
