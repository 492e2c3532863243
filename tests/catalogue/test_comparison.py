"""Tests of the comparison of a catalogue with the events of a trail."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit import AuditLogger, AuditTypeError
from structlog_audit.catalogue import MOST_UNDECLARED, catalogue, compare
from structlog_audit.events.event import EventStatus

NAMES = st.sampled_from(["STORE", "login", "logout", "x", "y"])
RECORDED = st.lists(
    st.tuples(NAMES, st.sampled_from(["ann", "", None]), st.sampled_from(EventStatus), st.booleans()), max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(named=st.sets(NAMES), events=RECORDED)
def test_comparison_equals_counting_each_operation(tmp_path, named, events):
    """For all catalogues and events, the comparison equals the counts of each operation's events."""
    (tmp_path / "app.py").write_text(
        "import structlog_audit\n" + "".join(f"structlog_audit.audited({n!r})\n" for n in named)
    )
    audit = AuditLogger()
    for name, user, status, _ in events:
        audit.record(name, user, status=status)

    found = compare(catalogue(tmp_path / "app.py"), audit)
    of = {name: [event for event in events if event[0] == name] for name in {event[0] for event in events}}

    assert found.events == len(events)
    assert found.recorded == {name: len(those) for name, those in of.items() if name in named}
    assert found.undeclared == {name: len(those) for name, those in of.items() if name not in named}
    assert set(found.never_recorded) == named - of.keys()
    assert set(found.never_failed) == {
        name for name, those in of.items() if name in named and {status for _, _, status, _ in those} == {"SUCCESS"}
    }
    without_user = Counter(name for name, user, _, _ in events if not user and name in named)
    assert found.without_user == without_user
    assert list(found.never_recorded) == sorted(found.never_recorded)


def test_events_of_other_kinds_are_left_out(tmp_path):
    """Trail events and intents are neither recorded nor undeclared operations."""
    (tmp_path / "app.py").write_text("")
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        pass
    compared = compare(catalogue(tmp_path / "app.py"), audit)
    assert (compared.events, compared.undeclared) == (0, {})


def test_filters_select_the_events(tmp_path):
    """Only the events that match the filters are compared."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    audit.record("a", "ann")
    audit.record("b", "bob")
    assert compare(catalogue(tmp_path / "app.py"), audit, user_id="ann").undeclared == {"a": 1}


def test_unknown_filter_raises(tmp_path):
    """An unknown filter raises a TypeError."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    with pytest.raises(AuditTypeError):
        compare(catalogue(tmp_path / "app.py"), audit, user="ann")


def test_undeclared_names_are_bounded(tmp_path):
    """The first thousand undeclared operations are listed by name; the events of the others are counted."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    for number in range(MOST_UNDECLARED + 5):
        audit.record(f"op-{number}")
        audit.record("op-0")
    compared = compare(catalogue(tmp_path / "app.py"), audit)
    assert (len(compared.undeclared), compared.undeclared_beyond) == (MOST_UNDECLARED, 5)
    assert compared.undeclared["op-0"] == MOST_UNDECLARED + 6


def change(audit, operation):
    audit.record(operation, metadata={"changes": {"name": {"before": None, "after": "a"}}})


def test_change_of_a_model_is_neither_declared_nor_undeclared_if_the_source_tracks_models(tmp_path):
    """The events of tracked models are counted by themselves; other operations remain undeclared."""
    (tmp_path / "app.py").write_text("from structlog_audit.contrib.django import track\ntrack(Model)\n")
    audit = AuditLogger()
    change(audit, "shop.tag.update")
    change(audit, "shop.tag.create")
    change(audit, "shop.tag.create")
    change(audit, "shop.tag.refund")
    audit.record("shop.tag.create", metadata={"changes": 3})

    compared = compare(catalogue(tmp_path / "app.py"), audit)

    assert list(compared.tracked.items()) == [("shop.tag.create", 2), ("shop.tag.update", 1)]
    assert compared.undeclared == {"shop.tag.create": 1, "shop.tag.refund": 1}
    assert compared.computed == 0
    assert compared.to_dict()["tracked"] == {"shop.tag.create": 2, "shop.tag.update": 1}


def test_change_of_a_model_is_undeclared_if_the_source_tracks_none(tmp_path):
    """An event in the form of a change is not a reason to trust it."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    change(audit, "shop.tag.create")
    compared = compare(catalogue(tmp_path / "app.py"), audit)
    assert (compared.tracked, compared.undeclared, compared.is_declared) == ({}, {"shop.tag.create": 1}, False)


def test_trail_of_tracked_models_alone_is_declared(tmp_path):
    """The check succeeds if only tracked models recorded events that the source does not name."""
    (tmp_path / "app.py").write_text("from structlog_audit.contrib import django\n@django.track\nclass Tag: pass\n")
    audit = AuditLogger()
    change(audit, "shop.tag.delete")
    assert compare(catalogue(tmp_path / "app.py"), audit).is_declared
