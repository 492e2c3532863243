"""Every way to configure logging: dictConfig, fileConfig, YAML and code."""

from __future__ import annotations

import gc
import json
import logging
import logging.config
import logging.handlers
import subprocess
import sys

import pytest
import yaml
from conftest import lines_in

import structlog_audit
from structlog_audit import AuditHandler, AuditTypeError, AuditValueError, get_audit_handler, get_audit_logger
from structlog_audit.recording.handler import close_reopened


def configuration(path, target="audit_file", **more):
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            target: {"class": "structlog_audit.AuditFileHandler", "filename": str(path)},
            "audit": {"class": "structlog_audit.AuditHandler", "max_events": 100, "target": target},
        },
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
        **more,
    }


@pytest.mark.parametrize("target", ["aa_file", "zz_file"])
def test_target_is_found_by_name_in_any_order(path, target):
    """dictConfig creates handlers in alphabetical order; a target before or after the handler is found and kept alive."""
    logging.config.dictConfig(configuration(path, target))
    gc.collect()
    get_audit_logger().info("STORE", user_id="u1")
    assert lines_in(path)[0]["operation"] == "STORE"
    assert get_audit_handler("audit").count_events() == 1


def test_second_dictconfig_continues_the_same_trail(path):
    """After the same configuration is applied again, the new handler appends to the trail."""
    for _ in range(2):
        logging.config.dictConfig(configuration(path))
        get_audit_logger().info("STORE")
    assert len(lines_in(path)) == 2
    assert get_audit_handler("audit").count_events() == 1
    assert get_audit_handler().complete_since is not None


def test_handler_records_after_a_later_dictconfig_closed_it(handler, log, path):
    """A later dictConfig closes every handler; one that stays attached keeps its buffer and opens its file again."""
    log.info("STORE")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    log.info("RECALL")
    assert [event.operation for event in get_audit_handler().query_events()] == ["RECALL", "STORE"]
    assert len(lines_in(path)) == 2


def test_handler_that_recorded_after_a_later_dictconfig_is_closed_at_the_end(handler, log, path):
    """A later dictConfig takes a handler out of the list of logging.shutdown; its later events end all the same."""
    log.info("STORE")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    log.info("RECALL")
    close_reopened()
    logging.shutdown()
    operations = [json.loads(line)["operation"] for line in path.read_bytes().splitlines()]
    assert operations == ["opened", "STORE", "closed", "opened", "RECALL", "closed"]


def test_handler_that_recorded_nothing_since_it_was_closed_is_left_alone(handler, log, path):
    """A handler without an event since its end is not closed once more."""
    log.info("STORE")
    handler.close()
    log.info("RECALL")
    handler.close()
    before = path.read_bytes()
    close_reopened()
    assert path.read_bytes() == before


def test_handler_records_after_a_later_fileconfig_closed_it(handler, log, path, tmp_path):
    """A handler that fileConfig closed, and that stays attached, opens its file again."""
    ini = tmp_path / "logging.ini"
    ini.write_text("[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n")
    logging.config.fileConfig(ini, disable_existing_loggers=False)
    log.info("STORE")
    assert len(lines_in(path)) == 1


def test_fileconfig_creates_a_handler(path, tmp_path):
    """An INI file can describe a handler."""
    ini = tmp_path / "logging.ini"
    ini.write_text(
        "[loggers]\nkeys=root,audit\n[handlers]\nkeys=audit\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
        "[logger_audit]\nqualname=audit\nlevel=INFO\npropagate=0\nhandlers=audit\n"
        f"[handler_audit]\nclass=structlog_audit.AuditHandler\nargs=(100,)\nkwargs={{'filename': {str(path)!r}}}\n"
    )
    logging.config.fileConfig(ini, disable_existing_loggers=False)
    get_audit_logger().info("STORE")
    assert len(lines_in(path)) == 1


def test_fileconfig_sets_the_target_by_name(path, tmp_path):
    """The option `target` of fileConfig chains the handler to the handler of that name."""
    ini = tmp_path / "logging.ini"
    ini.write_text(
        "[loggers]\nkeys=root,audit\n[handlers]\nkeys=audit,file\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
        "[logger_audit]\nqualname=audit\nlevel=INFO\npropagate=0\nhandlers=audit\n"
        "[handler_audit]\nclass=structlog_audit.AuditHandler\nargs=(100,)\ntarget=file\n"
        f"[handler_file]\nclass=structlog_audit.AuditFileHandler\nargs=({str(path)!r},)\n"
    )
    logging.config.fileConfig(ini, disable_existing_loggers=False)
    get_audit_logger().info("STORE")
    assert len(lines_in(path)) == 1


def test_target_cannot_change_after_the_first_event(handler, log):
    """setTarget raises an error once events are recorded in the previous target."""
    log.info("STORE")
    with pytest.raises(AuditValueError, match="already"):
        handler.setTarget(logging.NullHandler())


def test_yaml_creates_a_handler(path):
    """A configuration may come from YAML, with a mapping as the target."""
    text = f"""
        version: 1
        disable_existing_loggers: false
        handlers:
          audit:
            "()": structlog_audit.AuditHandler
            max_events: 50
            target: {{class: structlog_audit.AuditFileHandler, filename: "{path}", maxBytes: 1000, level: INFO}}
        loggers:
          audit: {{handlers: [audit], level: INFO, propagate: false}}
    """
    logging.config.dictConfig(yaml.safe_load(text))
    get_audit_logger().info("STORE")
    assert len(lines_in(path)) == 1


def test_trail_accepts_only_an_audit_formatter(path):
    """A configuration may set an AuditJsonFormatter for the file; another one is an error that names the handler."""
    config = configuration(path, formatters={"json": {"class": "structlog_audit.AuditJsonFormatter"}, "plain": {}})
    config["handlers"]["audit_file"]["formatter"] = "json"
    logging.config.dictConfig(config)
    config = configuration(path, formatters={"plain": {}})
    config["handlers"]["audit_file"]["formatter"] = "plain"
    with pytest.raises(ValueError, match="audit_file"):
        logging.config.dictConfig(config)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig creates the listener of a QueueHandler since 3.12")
def test_listener_of_a_queue_records_events(path):
    """A QueueHandler configured as since 3.12 works without a warning, and check() reports the queue."""
    config = configuration(path)
    config["handlers"]["queue"] = {"class": "logging.handlers.QueueHandler", "handlers": ["audit"]}
    config["loggers"]["audit"]["handlers"] = ["queue"]
    logging.config.dictConfig(config)
    (queue,) = logging.getLogger("audit").handlers
    queue.listener.start()
    get_audit_logger().info("STORE", user_id="u1", metadata={"a": [1]}, name="reserved")
    queue.listener.stop()
    event = get_audit_handler("audit").query_events()[0]
    assert (event.operation, event.user_id, event.metadata) == ("STORE", "u1", {"a": [1], "name": "reserved"})
    assert "queue" in [finding.code for finding in get_audit_handler("audit").check()]


def test_logging_shutdown_loses_nothing(path):
    """At the end of the interpreter the trail is complete, with the events that were logged during shutdown."""
    code = f"""
import atexit, logging, logging.config
import structlog_audit
logging.config.dictConfig({configuration(path)!r})
log = structlog_audit.get_audit_logger()
log.info("STORE")
logging.shutdown()
log.info("RECALL")
atexit.register(log.info, "FORGET")
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert [line["operation"] for line in lines_in(path)] == ["STORE", "RECALL", "FORGET"]


@pytest.mark.parametrize(("parameters", "error", "match"), [
    ({"max_events": 0}, AuditValueError, "max_events=0"),
    ({"max_events": "10"}, AuditTypeError, "max_events='10'"),
    ({"max_pending": -1}, AuditValueError, "max_pending=-1"),
    ({"max_event_bytes": 100}, AuditValueError, "max_event_bytes=100"),
    ({"on_error": "ignore"}, AuditValueError, "on_error='ignore': expected one of 'retry', 'raise'"),
    ({"on_failure": 3}, AuditTypeError, "on_failure=3"),
    ({"target": "nobody"}, AuditValueError, "target='nobody': expected the name of a configured handler"),
    ({"target": 7}, AuditTypeError, "target=7"),
    ({"target": AuditHandler()}, AuditTypeError, "expected a handler of another class, got an AuditHandler"),
    ({"target": {"class": "logging.NoSuch"}}, AuditValueError, "NoSuch"),
    ({"target": {"class": "logging.Formatter"}}, AuditTypeError, "expected the class of a logging.Handler"),
    ({"target": logging.NullHandler(), "filename": "x"}, AuditValueError, "expected only one of them"),
    ({"warm_start": True}, AuditValueError, "warm_start=True"),
    ({"filename": "/"}, AuditValueError, "filename='/': expected the path of a regular file.*a folder"),
    ({"filname": "x"}, TypeError, "filname"),
])  # fmt: skip
def test_invalid_parameter_is_named_in_the_error(parameters, error, match):
    """An invalid parameter raises an error with its name, its value and the expectation."""
    with pytest.raises(error, match=match):
        AuditHandler(**parameters)


def test_get_audit_handler_lists_handlers_if_none_or_several_match():
    """Without a handler, or with several and no name, the error lists the attached handlers."""
    with pytest.raises(AuditValueError, match="no AuditHandler is attached to a logger"):
        get_audit_handler()
    for name in ("one", "two"):
        made = AuditHandler()
        made.name = name
        logging.getLogger(f"audit.{name}").addHandler(made)
    assert get_audit_handler("two").name == "two"
    with pytest.raises(AuditValueError, match="several"):
        get_audit_handler()


def test_importing_configures_nothing():
    """Importing the package changes neither loggers nor handlers nor the configuration of structlog."""
    code = """
import logging, structlog
before = (logging.root.handlers[:], dict(logging.Logger.manager.loggerDict), logging.getLoggerClass(),
          logging.getLogRecordFactory(), structlog.get_config())
import structlog_audit
assert before == (logging.root.handlers[:], dict(logging.Logger.manager.loggerDict), logging.getLoggerClass(),
                  logging.getLogRecordFactory(), structlog.get_config())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_has_a_version():
    """`__version__` has three parts."""
    assert structlog_audit.__version__.count(".") == 2
