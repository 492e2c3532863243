"""The pytest plugin, in separate runs of pytest."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import pytest_structlog_audit

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs pytest in a separate process over a file with the given text."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(text, *arguments, ini=""):
        pytester.makeini(f"[pytest]\n{ini}")
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *arguments)

    return run


def test_plugin_is_found_by_its_entry_point():
    """pytest finds the plugin by itself."""
    (found,) = [point for point in entry_points(group="pytest11") if point.name == "structlog_audit"]
    assert found.value == "pytest_structlog_audit"
    assert found.load() is pytest_structlog_audit


def test_unused_plugin_imports_nothing(run):
    """Without a test that requests the fixture, neither the package nor any audit logger is created."""
    run(
        """
        import logging, sys

        def test_nothing(request):
            assert "pytest_structlog_audit" in sys.modules
            assert not [name for name in sys.modules if name.split(".")[0] in ("structlog_audit", "msgspec")]
            assert "audit_trail" not in request.fixturenames
            assert "audit" not in logging.root.manager.loggerDict
        """,
        "-p",
        "no:pytest-structlog",
    ).assert_outcomes(passed=1)


def test_fixture_works_beside_other_capturing_fixtures(run):
    """caplog, capture_logs, pytest-structlog and this fixture each see their events; each test starts anew."""
    result = run(
        """
        import logging, logging.config, logging.handlers
        import pytest, structlog, structlog.testing
        from structlog_audit import AuditProcessor, get_audit_logger

        def app(tmp_path, propagate):
            logging.config.dictConfig({
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "file": {"class": "structlog_audit.AuditFileHandler", "filename": str(tmp_path / "audit.jsonl")},
                    "audit": {"class": "structlog_audit.AuditHandler", "target": "file"},
                },
                "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": propagate}},
            })

        @pytest.fixture(scope="module")
        def trail_file(tmp_path_factory):
            folder = tmp_path_factory.mktemp("app")
            app(folder, True)
            return folder / "audit.jsonl"

        def test_caplog(trail_file, caplog, audit_trail):
            get_audit_logger().info("STORE", user_id="ann")
            logging.getLogger("audit").info("RECALL", extra={"user_id": "ann"})
            assert [record.user_id for record in caplog.records] == ["ann", "ann"]
            audit_trail.assert_recorded(operation="STORE", times=1)
            audit_trail.assert_recorded(operation="RECALL", times=1)
            assert trail_file.read_bytes() == b""

        def test_capture_logs(trail_file, audit_trail):
            audit_trail.assert_nothing_recorded()
            with structlog.testing.capture_logs() as logs:
                structlog.get_logger().info("app")
                get_audit_logger().info("STORE")
            assert [event["event"] for event in logs] == ["app"]
            audit_trail.assert_recorded(operation="STORE", times=1)

        @pytest.fixture
        def processors():
            structlog.configure(processors=[AuditProcessor(), structlog.processors.JSONRenderer()])
            yield
            structlog.reset_defaults()

        def test_pytest_structlog(trail_file, processors, log, audit_trail):
            structlog.get_logger().info("app", operation="STORE")
            get_audit_logger().info("RECALL")
            assert log.has("app")
            assert not log.has("RECALL")
            audit_trail.assert_recorded(operation="RECALL", times=1)
            audit_trail.assert_recorded(operation="STORE", times=1)

        def test_outside(trail_file):
            get_audit_logger().info("STORE")
            assert trail_file.read_bytes().count(b"STORE") == 1
        """,
        ini="structlog_keep = AuditProcessor\nstructlog_settings_report = never",
    )
    result.assert_outcomes(passed=4)


def test_pytest_structlog_removes_the_processor_by_default(run):
    """pytest-structlog removes every processor that its setting does not keep, `AuditProcessor` too."""
    run(
        """
        import structlog
        from structlog_audit import AuditProcessor

        def test_it(audit_trail, request):
            structlog.configure(processors=[AuditProcessor(), structlog.processors.JSONRenderer()])
            log = request.getfixturevalue("log")
            structlog.get_logger().info("app", operation="STORE")
            assert log.has("app")
            audit_trail.assert_nothing_recorded()
        """,
        ini="structlog_settings_report = never",
    ).assert_outcomes(passed=1)


def test_failure_points_at_the_line_of_the_test(run):
    """A failed expectation points at the line of the test, and shows the nearest event."""
    result = run(
        """
        from structlog_audit import get_audit_logger

        def test_it(audit_trail):
            get_audit_logger().info("STORE", user_id="bob")
            audit_trail.assert_recorded(operation="STORE", user_id="ann")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       audit_trail.assert_recorded(operation="STORE", user_id="ann")',
            "E       AssertionError: expected an event with operation='STORE', user_id='ann'; found 0",
            "E         ! user_id *'bob'    expected 'ann'",
            "*test_failure_points_at_the_line_of_the_test.py:5: AssertionError",
        ]
    )


def test_audit_logger_setting_names_the_captured_logger(run):
    """An application with another name for its audit logger configures it once, in the settings of pytest."""
    result = run(
        """
        from structlog_audit import get_audit_logger

        def test_it(audit_trail):
            get_audit_logger("billing.audit").info("PAY")
            audit_trail.assert_recorded(operation="PAY", times=1)
        """,
        ini="audit_logger = billing.audit",
    )
    result.assert_outcomes(passed=1)


def test_fixture_is_listed_with_its_description(run):
    """``pytest --fixtures`` lists the fixture with the first sentence of its docstring."""
    shown = run("", "--fixtures", "-q").stdout.str()
    assert "audit_trail -- " in shown
    assert "Capture the audit events that are recorded during the test." in shown


def test_plugin_can_be_disabled(run):
    """``-p no:structlog_audit`` disables the plugin."""
    result = run("def test_it(audit_trail): pass", "-p", "no:structlog_audit")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'audit_trail' not found"])


def test_plugin_module_imports_only_pytest():
    """The module of the plugin imports only pytest and the standard library."""
    code = "import pytest, sys; before = set(sys.modules); import pytest_structlog_audit; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pytest_structlog_audit"]
