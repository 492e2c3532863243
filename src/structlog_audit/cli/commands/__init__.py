"""The commands of the command line, one module for each.

A module defines a function with its own name, which takes the options and returns the exit code, and an ``EXAMPLE`` for its
help. Modules that not every command needs are imported in the functions, so that ``--help`` is quick.


Internal to the library: the public names are those of `structlog_audit`.
"""
