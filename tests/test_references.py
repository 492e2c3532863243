"""References in the nested mappings of a `dictConfig`: `ext://` names an object, `cfg://` a part of the configuration."""

from __future__ import annotations

import logging
import logging.config
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditError, AuditHandler, AuditValueError, Redactor, get_audit_handler, get_audit_logger
from structlog_audit._references import resolve_references

KEY = "0123456789abcdef0123456789abcdef"
SETTINGS = SimpleNamespace(
    KEY=KEY, NAME="email", DAYS=365, SIZE=1_000_000, LIMIT=3, MODE="drop", RULES=[{"a": "ext://b"}]
)

scalars = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def settings_module(monkeypatch):
    """A module that references name."""
    monkeypatch.setitem(sys.modules, "audit_settings", SETTINGS)


def configure(**more):
    """Apply a configuration with the handler *audit* in *more*."""
    config = {"version": 1, "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}}, **more}
    logging.config.dictConfig(config)
    return get_audit_handler()


def converting(value):
    """Return *value* as `dictConfig` passes it to a handler."""
    return logging.config.BaseConfigurator({"value": value}).config["value"]


def referenced(value, config):
    """Return *value* with every scalar replaced by a reference to it, and add them to *config*."""
    if isinstance(value, dict):
        return {key: referenced(item, config) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([referenced(item, config) for item in value])
    name = f"n{len(config)}"
    config[name] = SimpleNamespace(value=value)
    return f"cfg://{name}"


@given(values)
def test_references_at_any_depth_resolve(value):
    """For all containers, each reference in it becomes what it names, and each container a plain one of its kind."""
    config = {}
    config["value"] = referenced(value, config)

    def named(item):
        if type(item) is dict:
            return {key: named(member) for key, member in item.items()}
        if type(item) in (list, tuple):
            return type(item)([named(member) for member in item])
        assert type(item) is SimpleNamespace
        return item.value

    found = resolve_references("value", logging.config.BaseConfigurator(config).config["value"])
    assert named(found) == value


@given(values)
def test_value_without_references_is_unchanged(value):
    """For all values without a reference, the result equals the value."""
    assert resolve_references("value", value) is value


@pytest.mark.parametrize(
    "reference", ["ext://audit_settings.NOPE", "ext://no_such_module.x", "cfg://nope", "cfg://..."]
)
def test_unknown_reference_is_an_error_that_names_its_place(reference):
    """A reference that cannot be resolved is an error that names the member it is in."""
    with pytest.raises(
        AuditValueError, match=r"redactor\['keys'\]\[1\]: expected a reference that can be resolved, got "
    ):
        resolve_references("redactor", converting({"keys": ["email", reference]}))


def test_reference_to_a_surrounding_container_is_an_error():
    """A container that contains itself through a reference is an error instead of an endless one."""
    with pytest.raises(AuditValueError, match=r"redactor\['keys'\]\[0\]: expected a reference to another part"):
        resolve_references("redactor", converting({"keys": ["cfg://value"]}))


def test_object_that_ext_names_is_used_as_it_is():
    """The object that a reference names is not searched for references itself, as in the standard library."""
    assert resolve_references("monitor", converting(["ext://audit_settings.RULES"]))[0] is SETTINGS.RULES


@pytest.mark.parametrize("factory", ["class", "()"])
def test_redactor_of_a_configuration_resolves_references(factory):
    """The key of pseudonyms is the referenced one, never the text of the reference; so are keys and modes."""
    arguments = {
        "keys": {"email": "pseudonym", "iban": "ext://audit_settings.MODE"},
        "secret": "ext://audit_settings.KEY",
    }
    configure(handlers={"audit": {factory: "structlog_audit.AuditHandler", "redactor": arguments}})
    get_audit_logger().info("STORE", email="ada@example.org", iban="DE1")
    (event,) = get_audit_handler().query_events()
    expected = Redactor(keys=["email"], mode="pseudonym", secret=KEY).pseudonym("ada@example.org")
    assert event.metadata["email"] == expected
    assert "iban" not in event.metadata


def test_redactor_of_a_configuration_resolves_references_in_lists():
    """An item of a list is resolved, and ``cfg://`` finds another part of the configuration."""
    handler = configure(
        redaction={"keys": ["ext://audit_settings.NAME"]},
        handlers={"audit": {"class": "structlog_audit.AuditHandler", "redactor": "cfg://redaction"}},
    )
    assert handler.redactor == Redactor(keys=["email"])


def test_target_of_a_configuration_resolves_references(path):
    """The description of a target resolves references, those in its own mappings too."""
    target = {
        "()": "structlog_audit.AuditFileHandler",
        "filename": "cfg://paths.audit",
        "maxBytes": "ext://audit_settings.SIZE",
        "retention": {"max_age_days": "ext://audit_settings.DAYS"},
    }
    handler = configure(
        paths={"audit": str(path)},
        handlers={"audit": {"()": "structlog_audit.AuditHandler", "target": target}},
    )
    assert handler.target.baseFilename == str(path)
    assert (handler.target.maxBytes, handler.target.retention.max_age_days) == (1_000_000, 365)


def test_retention_of_a_configuration_resolves_references(path):
    """The retention of a file handler resolves references."""
    file = {
        "class": "structlog_audit.AuditFileHandler",
        "filename": str(path),
        "retention": {"max_segments": "ext://audit_settings.LIMIT"},
    }
    handler = configure(handlers={"audit": {"class": "structlog_audit.AuditHandler", "target": "file"}, "file": file})
    assert handler.target.retention.max_segments == 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_monitor_of_a_configuration_resolves_references(wrapped):
    """The rules of a monitor resolve references, in filters too."""
    rules = [
        {
            "name": "many",
            "within": "1h",
            "more_than": "ext://audit_settings.LIMIT",
            "metadata": {"by": "ext://audit_settings.NAME"},
        }
    ]
    monitor = {"rules": rules} if wrapped else rules
    handler = configure(handlers={"audit": {"class": "structlog_audit.AuditHandler", "monitor": monitor}})
    (rule,) = handler.monitor.rules
    assert (rule.threshold, rule.filters["metadata"]) == (3, {"by": "email"})


def test_formatter_of_a_configuration_resolves_references(path):
    """The static and renamed members of a formatter resolve references."""
    formatter = {
        "()": "structlog_audit.AuditJsonFormatter",
        "static_fields": {"service": {"name": "ext://audit_settings.NAME"}},
        "rename_fields": {"user_id": "ext://audit_settings.MODE"},
    }
    target = {"class": "logging.StreamHandler", "formatter": "json"}
    configure(
        formatters={"json": formatter},
        handlers={"audit": {"class": "structlog_audit.AuditHandler", "target": "stream"}, "stream": target},
    )
    made = get_audit_handler().target.formatter
    assert made.static_fields == {"service": {"name": "email"}}
    assert made.rename_fields == {"user_id": "drop"}


@pytest.mark.parametrize("secret", ["ext://audit_settings.KEY", "cfg://secrets.audit_trail", "ext://k"])
def test_secret_that_is_an_unresolved_reference_is_refused(secret):
    """The text of a reference is no key: everybody who reads the configuration has it. The message does not repeat it."""
    with pytest.raises(
        AuditValueError, match="secret: expected the key itself, got an ext:// or cfg:// reference"
    ) as caught:
        Redactor(keys=["email"], mode="pseudonym", secret=secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"credentials": "ext://audit_settings.KEY"}, {"credentials": KEY}])
@pytest.mark.parametrize("factory", [{"class": "logging.handlers.SMTPHandler"}, {"class": "logging.Formatter"}, {}])
def test_error_about_a_target_does_not_contain_its_arguments(factory, arguments):
    """A target that cannot be made is an error without its arguments, which may be credentials."""
    with pytest.raises(AuditError, match=r"target") as caught:
        AuditHandler(target=converting({**factory, **arguments}))
    assert KEY not in str(caught.value)
