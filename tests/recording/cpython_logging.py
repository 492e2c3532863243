"""Runs a class of CPython's ``test.test_logging`` with the classes of this library in the place of those that they claim to be.

``python cpython_logging.py CLASS`` prints a JSON object: the outcome of each test by name, ``ok``, ``skipped`` or the error.
"""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import sys
import types
import unittest
import warnings

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter


class AsMemoryHandler(AuditHandler):
    """An `AuditHandler` with the signature of a MemoryHandler, of which it has the target only."""

    def __init__(self, capacity=0, flushLevel=logging.ERROR, target=None, flushOnClose=True):  # noqa: N803
        super().__init__(target=target)


FILES = {"FileHandler": AuditFileHandler, "handlers.RotatingFileHandler": AuditFileHandler}

SUBSTITUTES = {
    "RotatingFileHandlerTest": FILES,
    "FileHandlerTest": FILES,
    "HandlerTest": {**FILES, "Handler": AuditHandler},
    "MemoryHandlerTest": {"handlers.MemoryHandler": AsMemoryHandler},
    "FormatterTest": {"Formatter": AuditJsonFormatter},
    "ConfigDictTest": {**FILES, "handlers.MemoryHandler": AsMemoryHandler},
}
"""The classes of the tests, each with the names in `logging` that stand for a class of this library."""

LEFT_OUT = {
    # They test other handlers; the first takes seconds.
    "HandlerTest.test_race",
    "FileHandlerTest.test_emit_reopen_error",
    # A named pipe is refused, as test_should_not_rollover shows; the test then waits a minute for its reader.
    "RotatingFileHandlerTest.test_should_not_rollover_named_pipe",
}
"""The tests that do not run."""


class Outcomes(unittest.TestResult):
    """The outcome of each test."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def _note(self, test, outcome):
        self.found[".".join(test.id().split(".")[-2:])] = outcome

    def addSuccess(self, test):
        self._note(test, "ok")

    def addSkip(self, test, reason):
        self._note(test, "skipped")

    def addFailure(self, test, error):
        self._note(test, f"{error[0].__name__}: {error[1]}")

    addError = addFailure  # noqa: N815 (the name in unittest)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)

    def stopTest(self, test):
        """Remove the handlers that a test leaves behind if its set-up fails."""
        super().stopTest(test)
        for handler in list(logging.root.handlers):
            logging.root.removeHandler(handler)


def substitute(module, substitutes):
    """Return a copy of *module*, `logging`, with *substitutes*."""
    copies = {"": types.ModuleType(module.__name__), "handlers": types.ModuleType("logging.handlers")}
    copies[""].__dict__.update(vars(module), handlers=copies["handlers"])
    copies["handlers"].__dict__.update(vars(module.handlers))
    for path, substitute in substitutes.items():
        place, _, name = path.rpartition(".")
        setattr(copies[place], name, substitute)
    return copies[""]


def run(name):
    """Return the outcomes of the tests in the class *name*."""
    import test.test_logging as tests

    tests.logging = substitute(logging, SUBSTITUTES[name])
    by_name = {f"logging.{path}": substitute for path, substitute in SUBSTITUTES[name].items()}
    resolve = logging.config.BaseConfigurator.resolve
    logging.config.BaseConfigurator.resolve = lambda self, text: by_name.get(text) or resolve(self, text)

    outcomes = Outcomes()
    for test in unittest.defaultTestLoader.loadTestsFromName(name, tests):
        if ".".join(test.id().split(".")[-2:]) not in LEFT_OUT:
            test.run(outcomes)
    return outcomes.found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(run(sys.argv[1])))
