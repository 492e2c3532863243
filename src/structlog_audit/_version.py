"""The version of the package, for modules that write it into their output."""

__version__ = "0.1.0"
