"""zstd, as Python 3.14 has it and the extra brings it to the others."""

try:
    from compression import zstd
except ImportError:
    from backports import zstd

__all__ = ["zstd"]
