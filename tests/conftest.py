"""Fixtures for most tests: a clean state of logging, and an audit logger with a trail."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditHandler, get_audit_logger
from structlog_audit.loggers import unheard
from structlog_audit.recording import fork_safety


def lines_in(path: Path) -> list[dict[str, Any]]:
    """Return the application events in the file at *path*, as dictionaries."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line]
    return [line for line in lines if "kind" not in line]


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write to a file fail, as on a full disk, until ``monkeypatch.undo()``."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)


class Interruption:
    """Calls *action* in a ``with`` block, like a signal handler, before one line that runs in *modules*.

    Args:
        due: The number of that line, counted from 1 over all lines that run in *modules*.
        action: The signal handler.
        modules: The traced modules.

    Afterwards `lines` is the number of lines that ran there.
    """

    def __init__(self, due: int, action: Callable[[], object], *modules: ModuleType) -> None:
        self.due, self.action, self.names = due, action, {module.__name__ for module in modules}
        self.lines = 0

    def __enter__(self) -> None:
        self.traced_before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self.traced_before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_globals.get("__name__") not in self.names:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.due:
                self.action()
        return self._trace


class DeferredCalls:
    """Stands in for ``call_later``: keeps the functions until `run` calls them."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def run(self) -> None:
        while self.calls:
            self.calls.pop(0)()


# The time that an example takes is meaningless on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# For a release: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", max_examples=2_000)

# A background job of a shell ignores SIGINT, and so do its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lift the limit of time for the tests that are expected to take minutes."""
    for item in items:
        if item.get_closest_marker("system") or item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(0))


@settings(max_examples=1, database=None)
@given(st.none())
def start_hypothesis(_nothing: None) -> None:
    """Let Hypothesis make its own random generator, whose referrers it looks for among the objects that are not frozen."""


def pytest_collection_finish() -> None:
    """Leave modules and tests out of further garbage collections, each of which would visit them all."""
    start_hypothesis()
    gc.collect()
    gc.freeze()


EXISTING_LOGGERS = set(logging.Logger.manager.loggerDict)


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """Restore logging and the context variables after each test."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    logging.disable(logging.NOTSET)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    unheard._counts.clear()
    # An entry point checks every handler of the process, including those that are not collected yet.
    for owner in fork_safety.live_owners():
        if isinstance(owner, AuditHandler):
            owner.on_error = "retry"
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name not in EXISTING_LOGGERS:
            for handler in logger.handlers[:]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    handler.close()
                logger.removeHandler(handler)
            logger.disabled, logger.propagate = False, True
            logger.filters.clear()
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the trail."""
    return tmp_path / "logs" / "audit.jsonl"


@pytest.fixture
def handler(path: Path) -> AuditHandler:
    """An audit handler on the logger "audit", with a trail."""
    made = AuditHandler(filename=path)
    logger = logging.getLogger("audit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(made)
    return made


@pytest.fixture
def log(handler: AuditHandler):
    """A bound logger that records in `handler`."""
    return get_audit_logger()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Configure a Django project with users, sessions, and the tracked models of the shop in two databases."""
    import django
    from asgiref.sync import sync_to_async
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections
    from django.db.backends.signals import connection_created

    def do_not_wait_for_the_disk(connection, **_):
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous = OFF")

    connection_created.connect(do_not_wait_for_the_disk)
    folder = tmp_path_factory.mktemp("django")
    settings.configure(
        SECRET_KEY="of these tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="test_django",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "shop"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "structlog_audit.contrib.django.AuditContextMiddleware",
        ],
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / f"{alias}.sqlite3")}
            for alias in ("default", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    for alias in ("default", "other"):
        call_command("migrate", verbosity=0, run_syncdb=True, database=alias)
    yield
    asyncio.run(sync_to_async(connections.close_all)())
    connections.close_all()
