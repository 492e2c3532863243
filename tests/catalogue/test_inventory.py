"""Tests of the catalogue as a whole: declarations against the events that a program records."""

from __future__ import annotations

import logging

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit import AuditHandler
from structlog_audit.catalogue import catalogue, compare
from structlog_audit.events.event import operation_of

EXPRESSIONS = {
    "literal": "{name!r}",
    "constant": "CONSTANT_{number}",
    "member": "Ops.M{number}",
    "local": "local",
    "either": "{name!r} if number_{number} else 'other'",
    "joined": "'' + {name!r}",
    "computed": "str({name!r})",
    "argument": "argument",
}
STATEMENTS = {
    "audited": "@structlog_audit.audited({op})\n    def inner(): pass\n    inner()",
    "operation": "with log.operation({op}): pass",
    "instrument": "import types\n    obj = types.SimpleNamespace(m=lambda: None)\n"
    "    structlog_audit.instrument(obj, {{'m': {op}}})\n    obj.m()",
    "info": "log.info({op})",
    "named": "log.error('text', operation={op})",
    "record": "audit.record({op})",
    "bound": "log.bind(a=1).warning({op}, user_id='u')",
}
NAMES = st.sampled_from(["STORE", "store", "x", "a.b", "é"])
PLACES = st.lists(
    st.tuples(st.sampled_from(list(STATEMENTS)), st.sampled_from(list(EXPRESSIONS)), NAMES),
    max_size=12,
)


def program(places):
    """Return the source of a program that runs all *places*: entry point, kind of expression, name."""
    constants = [f"CONSTANT_{n} = {name!r}\nnumber_{n} = {n % 2}" for n, (_, _, name) in enumerate(places)]
    members = [f"    M{n} = {name!r}" for n, (_, _, name) in enumerate(places)] or ["    pass"]

    functions = []
    for number, (entry_point, kind, name) in enumerate(places):
        operation = EXPRESSIONS[kind].format(name=name, number=number)
        body = STATEMENTS[entry_point].format(op=operation)
        functions.append(f"def f{number}(argument):\n    local = {name!r}\n    {body}\nf{number}({name!r})")

    head = [
        "import structlog_audit",
        "from enum import Enum",
        "log = structlog_audit.get_audit_logger()",
        "audit = structlog_audit.AuditLogger(handler='audit')",
    ]
    enum = ["class Ops(str, Enum):", *members]
    return "\n".join([*head, *constants, *enum, *functions]) + "\n"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES)
def test_recorded_operation_is_declared_or_computed(tmp_path, places):
    """For every program, each operation that it records is declared by name or comes from a computed declaration."""
    source = program(places)
    (tmp_path / "program.py").write_text(source, encoding="utf-8")

    handler, logger = AuditHandler(), logging.getLogger("audit")
    handler.set_name("audit")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    exec(compile(source, "program.py", "exec"), {"__name__": "program"})

    found = catalogue(tmp_path / "program.py")
    compared = compare(found, handler)

    computed = [name for _, kind, name in places if kind in ("computed", "argument")]
    assert len(found.computed) == len(computed)
    assert compared.events == len(places)
    assert set(compared.undeclared) <= {operation_of(name).value for name in computed}
    assert not set(compared.undeclared) & set(found.operations)
    assert compared.is_declared or compared.computed

    logger.handlers = []
    handler.close()
