"""The zstd module: that of the standard library (Python 3.14), or its backport."""

try:
    from compression import zstd
except ImportError:
    from backports import zstd

__all__ = ["zstd"]
