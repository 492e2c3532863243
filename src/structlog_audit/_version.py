"""The version of the package, for whatever names its maker in what it writes."""

__version__ = "0.1.0"
