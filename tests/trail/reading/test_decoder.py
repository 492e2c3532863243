"""Decoding of lines: every code of `structlog_audit.trail.reading.problems` that a line can have."""

import datetime as dt
import json
import time

import msgspec
import pytest
import strategies as s
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import id_of, ids, line_of

from structlog_audit.events.codec import decode, encode_event, encode_payload
from structlog_audit.events.event import EventStatus, Kind
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import Payload
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading.decoder import LineDecoder, Matcher
from structlog_audit.trail.reading.line_blocks import LineBlock
from structlog_audit.trail.reading.repeated_lines import REMEMBERED

ONE, TWO = line_of(1, 1.5), line_of(2, 2.5, user_id="ann", metadata={"a": 1})
HEAD = line_of(3, 3.5, entry_ids=["e1"], metadata={"_audit": {"entry_ids": "continued in 2 parts"}})
PART = line_of(4, 3.6, part_of=HEAD, entry_ids=["e2"])
LAST_PART = line_of(5, 3.7, part_of=HEAD, entry_ids=["e3", "e4"])


def decoded(*lines, scanner=None):
    """Return the batch of *lines*, and the codes and offsets of the findings."""
    reports = []
    batch = (scanner or LineDecoder()).decode_block(
        LineBlock(0, b"".join(lines)), lambda *finding: reports.append(finding)
    )
    assert all(reason for _, _, reason in reports)
    return batch, [(code, offset) for code, offset, _ in reports]


def changed(line, **members):
    """Return *line* with other members."""
    return json.dumps({**json.loads(line), **members}, separators=(",", ":")).encode() + b"\n"


CASES = [
    ("torn", ONE[:60] + b"\n"),
    ("torn", ONE[:-2] + b"\n"),
    ("torn", ONE[:60] + TWO),
    ("torn", ONE[:-1] + b'"\n'),
    ("torn", b'{"message": "STORE", "event_id": "e\n'),
    ("foreign", b"\x00\xff\n"),
    ("foreign", b"not json\n"),
    ("foreign", b'"text"\n'),
    ("foreign", b"[1]\n"),
    ("foreign", b"5\n"),
    ("foreign", b"null\n"),
    ("foreign", b'{"message": "started", "levelname": "INFO"}\n'),
    ("foreign", b"[" * 100_000 + b"\n"),
    ("foreign", changed(ONE, event_id=1)),
    ("foreign", changed(ONE, event_id=None)),
    ("foreign", changed(ONE, event_id="a\ud800")),
    ("foreign", changed(ONE, timestamp="yesterday")),
    ("foreign", changed(ONE, timestamp="a\ud800")),
    ("foreign", changed(ONE, timestamp=1_736_937_000)),
    ("foreign", changed(ONE, timestamp="2025-01-15")),
    ("foreign", ONE[:-1] + TWO),
    ("duplicate_key", ONE.replace(b'"status"', b'"operation":"FORGET","status"')),
    ("duplicate_key", ONE.replace(b'"status"', b'"user_id":"a","user_id":"b","status"')),
    ("duplicate_key", TWO.replace(b'"a":1', b'"a":1,"a":2')),
    ("duplicate_key", TWO.replace(b'"a":1', b'"x":[{"a":1,"a":1}]')),
    ("duplicate_key", ONE.replace(b'"status"', b'"\\u0073tatus":"FAILURE","status"')),
    ("duplicate_key", ONE.replace(b'"status"', b'"other":{"a":1,"a":1},"status"')),
    ("duplicate_key", changed(ONE, duration_ms="x").replace(b'"status"', b'"user_id":"a","user_id":"b","status"')),
    ("orphan_part", PART),
    ("orphan_part", changed(PART, part_of=None)),
    ("missing_part", HEAD + PART),
    ("missing_part", HEAD + PART[:-9] + b"\n"),
]


@pytest.mark.parametrize(("code", "bad"), CASES, ids=[f"{code} {number}" for number, (code, _) in enumerate(CASES)])
def test_line_that_is_not_an_event_is_reported_and_left_out(code, bad):
    """A line that is not a reliable event is reported with its offset, and the events around it are read."""
    batch, reports = decoded(ONE, bad, line_of(9, 9.5))
    assert ids(batch.events) == [id_of(ONE), id_of(line_of(9, 9.5))]
    assert reports[0] == (code, len(ONE)) or reports[-1] == (code, len(ONE))
    assert len(reports) == 1 or code == "missing_part"


def test_member_of_wrong_type_moves_to_the_metadata():
    """A member of a wrong type is reported, moved to the metadata, and marked, as in recording."""
    bad = changed(TWO, duration_ms="45.2", status="DONE", session_id=7)
    batch, reports = decoded(ONE, bad)
    assert reports == [("drift", len(ONE))]
    event = batch.events[1].event()
    assert (event.event_id, event.user_id, event.session_id, event.status) == (id_of(TWO), "ann", "7", "SUCCESS")
    assert event.duration_ms is None
    assert event.metadata["duration_ms"] == "45.2"
    assert event.metadata["status"] == "DONE"
    assert event.metadata["a"] == 1
    assert set(event.metadata["_audit"]) == {"duration_ms", "status"}


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
@pytest.mark.parametrize(
    "written", ["2025-01-15T10:30:01.5", "2025-01-15 10:30:01.500000", "2025-01-15T10:30:01.5000001"]
)
def test_time_without_zone_is_utc(monkeypatch, zone, written):
    """A time without a zone is UTC whatever the zone of the reader, and is reported."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        batch, reports = decoded(changed(ONE, timestamp=written))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert reports == [("drift", 0)]
    assert batch.events[0].timestamp == dt.datetime(2025, 1, 15, 10, 30, 1, 500_000, dt.UTC)


@pytest.mark.parametrize("form", [b":", b": "])
def test_one_of_the_six_operations_in_lower_case_is_found_by_its_name(form):
    """A line whose operation is one of the six in lower case is found as that, whatever else is canonical in it."""
    line = TWO.replace(b"STORE", b"store").replace(b":", form, 1)
    batch, _ = decoded(ONE, line)
    assert len(Matcher(conditions(operation="STORE"))(batch)) == 2


def test_status_and_six_operations_match_in_any_case():
    """A status or one of the six operations in lower case is the same one, and not a finding."""
    batch, reports = decoded(changed(ONE, operation="store", status="failure"), changed(TWO, operation="recall"))
    assert [event.operation for event in batch.events] == ["STORE", "RECALL"]
    assert batch.events[0].status == "FAILURE"
    assert reports == []


def test_times_are_converted_to_utc():
    """A time with another offset is converted to UTC."""
    batch, _ = decoded(changed(ONE, timestamp="2025-01-15T12:30:01.500000+02:00"))
    (event,) = Matcher(conditions())(batch)
    assert event.timestamp == decode(ONE).timestamp
    assert event.timestamp.tzinfo is dt.UTC


@pytest.mark.parametrize(
    "bad",
    [
        TWO.replace(b"ann", b"an\xff"),
        TWO.replace(b'"metadata"', b'"other":"\xff","metadata"'),
        changed(TWO, duration_ms="x").replace(b"ann", b"an\xff"),
    ],
)
def test_invalid_utf_8_is_replaced_and_reported(bad):
    """Bytes that are not UTF-8 are replaced by U+FFFD and reported; the event is read."""
    batch, reports = decoded(ONE, bad)
    assert ids(batch.events) == [id_of(ONE), id_of(TWO)]
    assert ("invalid_utf8", len(ONE)) in reports
    assert batch.events[1].user_id in ("an\ufffd", "ann")


def test_byte_order_mark_is_ignored_and_reported():
    """A byte order mark is reported and does not hide the event."""
    batch, reports = decoded(b"\xef\xbb\xbf" + ONE, TWO)
    assert ids(batch.events) == [id_of(ONE), id_of(TWO)]
    assert reports == [("bom", 0)]


@pytest.mark.parametrize("empty", [b"\n", b"\r\n", b"  \n"])
def test_empty_line_is_not_a_finding(empty):
    """Empty lines and the CRs of other systems are not findings."""
    batch, reports = decoded(empty, ONE.replace(b"\n", b"\r\n"), empty, empty, TWO)
    assert ids(batch.events) == [id_of(ONE), id_of(TWO)]
    assert reports == []


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_parts_join_their_event(between):
    """Lines of parts add their entry ids to the event before them."""
    batch, reports = decoded(ONE, HEAD, between, PART, LAST_PART, TWO)
    assert ids(batch.events) == [id_of(ONE), id_of(HEAD), id_of(TWO)]
    assert batch.events[1].entry_ids == ["e1", "e2", "e3", "e4"]
    assert reports == []
    offsets = [0, len(ONE), len(ONE + HEAD + between + PART + LAST_PART)]
    assert batch.offsets() == [*offsets, batch.block.stop]


def test_exported_event_lacks_no_parts():
    """In an export, an event that had parts is one line, and lacks none."""
    exported = changed(HEAD, entry_ids=["e1", "e2", "e3", "e4"])
    batch, reports = decoded(exported, TWO)
    assert ids(batch.events) == [id_of(HEAD), id_of(TWO)]
    assert reports == []


def test_stored_lines_include_the_parts():
    """The stored lines of an event are its lines in the file, with its parts."""
    batch, _ = decoded(ONE, HEAD, b"junk\n", PART, LAST_PART, TWO)
    assert [batch.stored_lines(number) for number in range(3)] == [ONE, HEAD + PART + LAST_PART, TWO]
    batch, _ = decoded(changed(TWO, duration_ms="x"))
    assert decode(batch.stored_lines(0)).event() == batch.events[0].event()
    assert batch.stored_lines(0).endswith(b"}\n")


def test_repeated_line_is_left_out():
    """A line that is repeated, in the same block or a later one, is one event; the same id with another content is not."""
    scanner = LineDecoder()
    batch, reports = decoded(ONE, TWO, ONE, scanner=scanner)
    assert ids(batch.events) == [id_of(ONE), id_of(TWO)]
    assert reports == [("repeated", len(ONE + TWO))]
    assert batch.offsets() == [0, len(ONE), len(ONE + TWO + ONE)]
    batch, reports = decoded(line_of(8), TWO, changed(ONE, status="FAILURE"), scanner=scanner)
    assert ids(batch.events) == [id_of(line_of(8)), id_of(ONE)]
    assert reports == [("repeated", len(line_of(8)))]


def test_repeated_line_is_recognised_within_a_bound():
    """A repeated line is recognised among the last events; memory does not grow with the number of events."""
    scanner = LineDecoder()
    for number in range(40):
        decoded(*(line_of(number * 100 + n) for n in range(100)), scanner=scanner)
    assert decoded(line_of(4_000 - REMEMBERED), scanner=scanner)[1] == [("repeated", 0)]
    assert decoded(line_of(5), scanner=scanner)[1] == []
    remembered = scanner._remembered
    assert len(remembered._recent.lines()) + len(remembered._earlier.lines()) <= 2 * REMEMBERED + 100


@given(s.well_typed)
@settings(max_examples=200)
def test_recorded_lines_have_no_findings(fields):
    """For all events, a recorded line decodes to the same event without a finding."""
    body = Payload(**{**fields, "status": fields.get("status") or "SUCCESS"})
    line = Stamp(clock=lambda: 1_736_937_045_123_456_000).line(encode_payload(body, 32_000))
    batch, reports = decoded(line)
    assert reports == []
    assert [event.event() for event in batch.events] == [decode(line).event()]


@given(s.metadata)
@settings(max_examples=100)
def test_json_of_other_writers_has_no_findings(metadata):
    """For all JSON values in any form that JSON allows, the event is read without a finding."""
    line = json.dumps({**json.loads(ONE), "metadata": metadata}, indent=None).encode() + b"\n"
    batch, reports = decoded(line)
    assert reports == []
    assert batch.events[0].metadata == metadata


# --- whole blocks ----------------------------------------------------------------------------------------------------------


def reordered(line, *names):
    """Return *line* with the members *names* at its end."""
    members = json.loads(line)
    last = {name: members.pop(name) for name in names if name in members}
    return json.dumps(members | last, separators=(",", ":")).encode() + b"\n"


CHANGES = {
    "none": lambda line: line,
    "another offset": lambda line: line.replace(b'Z"', b'+02:00"', 1),
    "a whole second": lambda line: line.replace(b".500000Z", b".000000Z"),
    "one of the six in lower case": lambda line: line.replace(b'"STORE"', b'"store"'),
    "another operation": lambda line: line.replace(b'"STORE"', b'"user.delete"'),
    "an intent": lambda line: line.replace(b"}\n", b',"kind":"intent"}\n'),
    "a part that follows nothing": lambda line: line.replace(b"}\n", b',"part_of":"evt_1"}\n'),
    "a kind of parts": lambda line: line.replace(b"}\n", b',"kind":"part"}\n'),
    "a link of a chain": lambda line: line.replace(b"}\n", b',"chain":"v1:abc"}\n'),
    "an unknown kind": lambda line: line.replace(b"}\n", b',"kind":"other"}\n'),
    "an unknown member": lambda line: line.replace(b"}\n", b',"other":1}\n'),
    "a null": lambda line: line.replace(b"}\n", b',"session_id":null}\n'),
    "a key twice": lambda line: line.replace(b"}\n", b',"operation":"X"}\n'),
    "an inner key twice": lambda line: line.replace(b"}\n", b',"metadata":{"a":1,"a":1}}\n'),
    "spaces": lambda line: line.replace(b'":', b'": '),
    "an escape": lambda line: line.replace(b"S", b"\\u0053"),
    "a line break": lambda line: line.replace(b"}\n", b"\n}\n"),
    "another order": lambda line: reordered(line, "operation", "user_id"),
    "no status": lambda line: line.replace(b',"status":"SUCCESS"', b""),
    "a failure without status": lambda line: line.replace(b'"status":"SUCCESS"', b'"error_message":"no"'),
    "a promise of parts": lambda line: line.replace(
        b'"status"', b'"metadata":{"_audit":{"entry_ids":"continued in 1 parts"}},"status"'
    ),
    "bytes that are not UTF-8": lambda line: line.replace(b"ann", b"a\xffn"),
    "a torn end": lambda line: line[:-9] + b"\n",
    "no content": lambda line: b"\n",
}
"""What may be different in a line, by name."""

changed_lines = st.builds(
    lambda number, user, change: CHANGES[change](line_of(number, number + 0.5, user_id=user)),
    st.integers(1, 9),
    st.sampled_from(["ann", "bob", "é"]),
    st.sampled_from(["none"] * 8 + list(CHANGES)),
)
"""A line of ten seconds: in a list of them, some repeat others and some go back in time."""


def members_of(batch):
    """Return all members of the events in *batch*."""
    return [msgspec.structs.asdict(event) for event in batch.events]


@given(st.lists(st.lists(changed_lines, min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=600)
def test_blocks_of_any_lines_are_decoded_as_line_by_line(blocks):
    """For all blocks of lines, decoding them as a whole gives the events, offsets and findings of each line by itself."""
    whole, by_line = LineDecoder(), LineDecoder()
    by_line._decode_canonical = lambda block: None
    wanted = Matcher(conditions())

    for lines in blocks:
        batch, reports = decoded(*lines, scanner=whole)
        expected, expected_reports = decoded(*lines, scanner=by_line)
        assert members_of(batch) == members_of(expected)
        assert batch.offsets() == expected.offsets()
        assert sorted(reports) == sorted(expected_reports)
        assert ids(wanted(batch)) == ids(wanted(expected))
        assert all(event.timestamp.tzinfo is dt.UTC for event in batch.events)


@given(
    st.lists(changed_lines, min_size=1, max_size=8), st.sampled_from([{}, {"user_id": "ann"}, {"operation": "STORE"}])
)
@settings(max_examples=400)
def test_lines_of_an_export_are_those_that_the_events_encode_to(lines, wanted):
    """For all lines, an export that copies them has the lines of the selected events, and the links of a chain among them."""
    batch, _ = decoded(*lines)
    selected = Matcher(conditions(**wanted))(batch)
    copied = selected.lines().replace(b',"chain":"v1:abc"', b"")
    assert copied == b"".join(encode_event(event.event()) + b"\n" for event in selected)


@given(
    blocks=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab")), min_size=1, max_size=4), max_size=12
    ),
)
@settings(max_examples=300)
def test_repeated_lines_are_those_that_an_earlier_event_has(blocks):
    """For all orders of ids, a line is repeated exactly if the last event with its id has the same line."""
    decoder = LineDecoder()
    last = {}
    for block in blocks:
        lines = [line_of(number, user_id=user) for number, user in block]
        batch, _ = decoded(*lines, scanner=decoder)

        expected = []
        for line in lines:
            if last.get(id_of(line)) != line:
                expected.append(line)
            last[id_of(line)] = line
        assert [batch.stored_lines(number) for number in range(len(batch.events))] == expected


def test_names_of_operations_are_remembered_within_a_bound():
    """A trail with a new name in each event does not make the memory grow."""
    decoder = LineDecoder()
    for number in range(3_000):
        decoded(line_of(number).replace(b'"STORE"', b'"GET /%d"' % number), scanner=decoder)
    assert len(decoder._operations) < 2_000


# --- lines of other writers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Event", "", "Trail", 5, ["trail"], {"trail": 1}])
def test_unknown_kind_becomes_metadata(kind):
    """A line of an unknown kind is an application event with the kind in its metadata, and is reported."""
    batch, reports = decoded(ONE, changed(TWO, kind=kind))
    assert batch.events[1].kind is None
    assert batch.events[1].metadata == {"a": 1, "kind": kind}
    assert reports == [("drift", len(ONE))]


@pytest.mark.parametrize("kind", Kind)
def test_kind_of_the_library_stays_text(kind):
    """A kind of the library is plain text, whatever the form of its line."""
    line = line_of(1, kind=kind.value) if kind is not Kind.PART else PART
    for form in (line, line.replace(b'":', b'": ')):
        batch, reports = decoded(HEAD, form, LAST_PART)
        kinds = {event.kind for event in batch.events} - {None}
        assert all(type(found) is str for found in kinds)
        assert kinds == ({kind.value} if kind is not Kind.PART else set())
        assert "drift" not in dict(reports)


@pytest.mark.parametrize("line", [line_of(1, 1.5, metadata={"a": "\u202e"}), line_of(1, 1), changed(ONE, user_id="a")])
def test_link_of_a_chain_is_no_unknown_member(line):
    """A line with escapes, or a time without a fraction, is decoded by itself: its link is none of the metadata either."""
    linked = line[:-2] + b',"chain":"' + b"0" * 64 + b'"}\n'
    batch, findings = decoded(linked, b"\n")
    assert (findings, batch.events[0].chain, "chain" in batch.events[0].metadata) == ([], "0" * 64, False)


def test_unknown_members_become_metadata():
    """Unknown members move to the metadata, where a member that is there already wins, and are reported by name."""
    reports = []
    line = changed(TWO, a=2, ip="203.0.113.7", part_of=["x"])
    batch = LineDecoder().decode_block(LineBlock(0, line), lambda *finding: reports.append(finding))
    assert batch.events[0].metadata == {"a": 1, "a_": 2, "ip": "203.0.113.7", "part_of": ["x"]}
    ((code, _, reason),) = reports
    assert code == "drift"
    assert "a, ip, part_of" in reason


@pytest.mark.parametrize("timestamp", ["2025-01-15T10:30:45.000000Z", "2025-01-15T10:30:45.500000Z"])
def test_link_of_a_chain_is_no_finding_in_any_second(timestamp):
    """A line with a link is one of the library, also if its time is a whole second."""
    line = changed(TWO, timestamp=timestamp, chain="0a" * 32)
    batch, reports = decoded(line)
    assert (batch.events[0].metadata, batch.events[0].chain, reports) == ({"a": 1}, "0a" * 32, [])
    # Another member of that name is as any unknown one.
    batch, reports = decoded(changed(TWO, timestamp=timestamp, chain="bitcoin", ip="::1"))
    assert (batch.events[0].metadata, reports) == ({"a": 1, "chain": "bitcoin", "ip": "::1"}, [("drift", 0)])


@pytest.mark.parametrize(
    "members", [{"ip": "::1"}, {"status": "failed"}, {"status": None, "ip": "::1"}, {"level": "ERROR"}]
)
def test_status_of_a_line_in_another_form_has_the_type_of_others(members):
    """A status is an `EventStatus` whatever the form of its line."""
    batch, _ = decoded(changed(ONE, **members))
    assert type(batch.events[0].status) is EventStatus


@pytest.mark.parametrize(
    "name", ["user_id", "session_id", "entry_ids", "metadata", "error_message", "duration_ms", "kind"]
)
def test_null_member_is_absent(name):
    """A member that is null counts as absent, which is not a finding."""
    members = json.loads(TWO)
    members.pop(name, None)
    absent = json.dumps(members).encode() + b"\n"
    batch, reports = decoded(changed(TWO, **{name: None}))
    assert [event.event() for event in batch.events] == [event.event() for event in decoded(absent)[0].events]
    assert reports == []


@pytest.mark.parametrize("other", [{"entry_ids": None}, {"ip": "x"}, {"duration_ms": "x"}])
def test_marks_keep_their_name(other):
    """The marks of an event stay, and those of reading join them, in a line of any form."""
    marked = {"pin": "[redacted]", "_audit": {"pin": "redacted: mask"}}
    batch, _ = decoded(changed(TWO, metadata=marked, **other))
    metadata = batch.events[0].metadata
    assert metadata["_audit"]["pin"] == "redacted: mask"
    assert "_audit_" not in metadata
    assert ("duration_ms" in metadata["_audit"]) == ("duration_ms" in other)


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"outcome": "FAILURE"}, "FAILURE"),
        ({"result": "denied"}, "FAILURE"),
        ({"success": False}, "FAILURE"),
        ({"any_name": "failure"}, "FAILURE"),
        ({"any_name": "PARTIAL"}, "PARTIAL"),
        ({"any_name": "PARTIAL", "outcome": "failed"}, "FAILURE"),
        ({"level": "error"}, "FAILURE"),
        ({"levelname": "CRITICAL"}, "FAILURE"),
        ({"exc_info": "Traceback …"}, "FAILURE"),
        ({"error_message": "boom", "ip": "x"}, "FAILURE"),
        ({"level": "info", "outcome": "SUCCESS", "error": None, "exc_info": ""}, "SUCCESS"),
        ({"note": "denied", "code": 404}, "SUCCESS"),
        ({"status": "SUCCESS", "level": "error"}, "SUCCESS"),
    ],
)
def test_failure_under_another_name_is_a_failure(members, status):
    """Without a status, an event is as bad as the worst of its other members says; with one, the status counts."""
    line = json.loads(ONE)
    del line["status"]
    batch, _ = decoded(json.dumps({**line, **members}).encode() + b"\n")
    assert batch.events[0].status == status


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"NaN", "NaN"),
        (b"1e999", "Infinity"),
        (b'"a\\ud800"', "a\\ud800"),
    ],
)
@pytest.mark.parametrize("space", [b"", b" "])
def test_value_that_json_cannot_hold_becomes_text(value, text, space):
    """A value that not every reader of JSON takes is read as it is recorded: as text, and reported."""
    line = TWO.replace(b'"a":1', b'"a":' + value).replace(b'":', b'":' + space)
    batch, reports = decoded(line)
    event = batch.events[0]
    assert event.metadata["a"] == text
    assert reports == [("drift", 0)]
    assert decode(batch.stored_lines(0)).event() == event.event()


@pytest.mark.parametrize("digits", [20, 4_301])
def test_long_integer_keeps_its_digits(digits):
    """An integer of any length keeps its digits; one that Python does not convert is text."""
    batch, _ = decoded(TWO.replace(b'"a":1', b'"a":' + b"9" * digits))
    event = batch.events[0]
    assert str(event.metadata["a"]) == "9" * digits
    assert decode(batch.stored_lines(0)).event() == event.event()


@given(s.metadata, st.sampled_from(["x", "kind", "level", "part_of"]))
@settings(max_examples=200)
def test_stored_lines_of_any_foreign_event_are_that_event(value, name):
    """For all unknown members, the stored lines of the event decode to the event."""
    batch, reports = decoded(changed(TWO, **{name: value}))
    assert [code for code, _ in reports] == ["drift"]
    assert decode(batch.stored_lines(0)).event() == batch.events[0].event()
