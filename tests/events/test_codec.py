"""Tests of `structlog_audit.events.codec`, `truncation` and `payload`."""

import datetime as dt
import hashlib
import json
import math
import sys

import msgspec
import pytest
import strategies as s
from hypothesis import example, given, settings
from hypothesis import strategies as st

from structlog_audit.events import codec
from structlog_audit.events.codec import (
    HEAD_BYTES,
    MARKS,
    MIN_EVENT_BYTES,
    decode,
    decode_all,
    decode_event,
    decode_members,
    encode_event,
    encode_payload,
    encode_text,
    to_json,
)
from structlog_audit.events.conversion import convert
from structlog_audit.events.event import AuditEvent, EventStatus, Operation, OperationType
from structlog_audit.events.event_id import Stamp, id_of_line
from structlog_audit.events.payload import Payload, TrailPayload
from structlog_audit.events.truncation import KEPT_CHARACTERS, LONGEST_ID
from structlog_audit.exceptions import AuditDecodeError

CAP = 32_000
TIMESTAMP = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)


def lines_of(fields, cap=CAP):
    """Return the decoded lines of the event with *fields*, after checking the properties of all lines."""
    data = Stamp().line(encode_payload(convert(fields), cap))
    raw = data.splitlines(keepends=True)
    assert [line.decode() for line in raw] == data.decode().splitlines(keepends=True)
    assert not set(data.decode()) & set(s.DANGEROUS) - {"\n"}
    for line in raw:
        assert line.endswith(b"\n")
        assert len(line) <= cap
        assert line.index(b'"operation"') >= HEAD_BYTES
    lines = [json.loads(line, parse_constant=pytest.fail) for line in raw]
    for line in lines[1:]:
        assert line["part_of"] == lines[0]["event_id"]
        assert line["kind"] == "part"
    assert "kind" not in lines[0]
    return lines


def test_members_are_decoded_by_themselves():
    """Each member that an index can hold has its value, and where a line omits it, its default."""
    members = {
        "operation": "STORE",
        "user_id": "ann",
        "session_id": "s",
        "entry_ids": ["e1"],
        "status": "FAILURE",
    }
    full = Stamp().line(encode_payload(convert(members), CAP))
    kind = encode_event(event(kind="trail", operation=Operation("opened"))) + b"\n"
    first, second = decode_members([*members, "kind"], full + kind)
    assert [getattr(first, name) for name in members] == list(members.values())
    assert first.kind is None
    assert (second.kind, second.operation, second.status) == ("trail", "opened", "SUCCESS")
    assert (second.user_id, second.session_id, second.entry_ids) == (None, None, [])

    (only,) = decode_members(["kind"], kind)
    assert only.__struct_fields__ == ("kind",)


def event(**members):
    return AuditEvent(**{"event_id": "evt_1", "timestamp": TIMESTAMP, "operation": Operation("x"), **members})


# --- encoding -------------------------------------------------------------------------------------------------------


@given(s.any_fields, st.sampled_from([MIN_EVENT_BYTES, CAP]))
@settings(max_examples=s.examples(50), deadline=None)
def test_encoding_accepts_any_fields(fields, cap):
    """For all fields an application could pass, the lines are valid JSON, bounded, and decode as one event."""
    lines_of(s.made(fields), cap)
    decoded = decode(Stamp().line(encode_payload(convert(s.made(fields)), cap)))
    assert decoded.kind is None
    assert decoded.operation


@pytest.mark.parametrize("cap", [MIN_EVENT_BYTES, CAP])
@pytest.mark.parametrize("name", [*Payload.__struct_fields__, "other"])
@pytest.mark.parametrize("make", s.HOSTILE)
def test_encoding_accepts_any_value_in_any_member(make, name, cap):
    """Each hostile value in each member of an event gives valid, bounded lines."""
    lines_of({"operation": "STORE", name: make()}, cap)


sized = st.integers(0, 3_000).flatmap(lambda size: st.sampled_from("a\x1bé\u202e😀").map(lambda char: char * size))


@given(
    st.fixed_dictionaries(
        {"operation": sized},
        optional={
            "user_id": sized,
            "session_id": sized,
            "error_message": sized,
            "entry_ids": st.integers(0, 3_000).flatmap(
                lambda count: st.sampled_from(["e", "\u202e" * LONGEST_ID]).map(
                    lambda text: [f"{text[:350]}{number}" for number in range(count // len(text))]
                )
            ),
            "metadata": st.dictionaries(sized.filter(len), st.one_of(sized, st.lists(sized, max_size=3))),
        },
    ),
    st.integers(MIN_EVENT_BYTES, 6_000),
)
@settings(max_examples=150, deadline=None)
def test_long_event_fits_the_limit_and_keeps_its_entry_ids(fields, cap):
    """For all sizes of members and limits, each line fits, and all entry ids are present, in order."""
    lines = lines_of(fields, cap)
    assert [entry_id for line in lines for entry_id in line.get("entry_ids", [])] == fields.get("entry_ids", [])


@given(st.integers(3_300, 3_720), st.integers(1, 60))
@example(3_600, 1)
@settings(max_examples=200, deadline=None)
def test_payload_leaves_room_for_members_of_the_commit(size, count):
    """For all payloads around the limit, the bytes that the commit needs for its members are left free."""
    payload = Payload("STORE", entry_ids=[f"entry_{number}" for number in range(count)], metadata={"a": "x" * size})
    for data in encode_payload(payload, MIN_EVENT_BYTES).split(b"\n"):
        assert len(b"{" + data) <= MIN_EVENT_BYTES - 400


def test_truncated_text_is_marked_with_size_and_digest():
    """The beginning of a truncated text remains, and its mark has the bytes and the SHA-256 of the whole."""
    text, document = "é" * 40_000, {"a": ["x" * 40_000]}
    (line,) = lines_of({"operation": "STORE", "text": text, "document": document, "small": 5})
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert line["metadata"]["text"] == "é" * KEPT_CHARACTERS
    assert line["metadata"]["small"] == 5
    assert line["metadata"][MARKS]["text"] == f"cut: 80000 bytes, sha256 {digest}"


def test_truncated_document_becomes_the_beginning_of_its_json():
    """The beginning of the JSON of a truncated container remains, and its mark has the digest of the whole."""
    document = {"a": ["x" * 40_000]}
    (line,) = lines_of({"operation": "STORE", "document": document})
    original = msgspec.json.encode(document)
    assert line["metadata"]["document"] == original.decode()[:KEPT_CHARACTERS]
    assert line["metadata"][MARKS]["document"] == (
        f"cut: {len(original)} bytes, sha256 {hashlib.sha256(original).hexdigest()}"
    )


@pytest.mark.parametrize("name", ["operation", "user_id", "session_id", "error_message"])
def test_long_member_is_truncated_and_marked(name):
    """A member that is too long is truncated like any other value, and marked under its name."""
    text = "x" * 50_000
    (line,) = lines_of({"operation": "STORE", name: text})
    assert line[name] == "x" * KEPT_CHARACTERS
    assert line["metadata"][MARKS] == {name: f"cut: 50000 bytes, sha256 {hashlib.sha256(text.encode()).hexdigest()}"}


def test_largest_value_is_truncated_first():
    """A value that need not be truncated stays whole."""
    (line,) = lines_of({"operation": "STORE", "small": "s" * 1_000, "large": "l" * 40_000})
    assert line["metadata"]["small"] == "s" * 1_000
    assert list(line["metadata"][MARKS]) == ["large"]


def test_short_value_keeps_its_type():
    """A value that is large only because of its escapes does not become text."""
    small = ["\u202e" * 90]
    metadata = {"small": small, "long": "x" * 500} | {f"k{number}": "y" * 499 for number in range(7)}
    (line,) = lines_of({"operation": "STORE", "metadata": metadata}, MIN_EVENT_BYTES)
    assert line["metadata"]["small"] == small
    assert line["metadata"][MARKS].keys() >= {"long"}


def test_metadata_of_too_many_members_is_left_out_as_a_whole():
    """Metadata with too many members to truncate is left out, and marked with members, bytes and SHA-256."""
    metadata = {f"key_{number}": "v" * 50 for number in range(2_000)}
    (line,) = lines_of({"operation": "STORE", "user_id": "u" * 200, "metadata": metadata})
    data = msgspec.json.encode(metadata)
    assert line["metadata"][MARKS]["metadata"] == (
        f"left out: 2000 members, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"
    )
    assert list(line["metadata"]) == [MARKS]
    assert line["user_id"] == "u" * KEPT_CHARACTERS


def test_truncation_calls_no_method_of_a_key():
    """Truncation calls no method of keys of a subclass of str."""
    metadata = {s.HostileStr(f"key_{number}"): "v" * 9_000 for number in range(9)}
    (line,) = lines_of({"operation": "STORE", "metadata": metadata})
    assert any(name.startswith("key_") for name in line["metadata"][MARKS])


def test_intent_id_is_never_truncated():
    """However large the metadata, the id of the intent stays."""
    intent_id = f"evt_{0:032x}"
    metadata = {**{f"key_{number}": "v" * 50 for number in range(2_000)}, "intent_id": intent_id}
    (line,) = lines_of({"operation": "STORE", "metadata": metadata}, MIN_EVENT_BYTES)
    assert line["metadata"]["intent_id"] == intent_id
    assert line["metadata"][MARKS]["metadata"].startswith("left out: 2000 members, ")


@pytest.mark.parametrize("cap", [MIN_EVENT_BYTES, CAP, 1_000_000])
@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_entry_ids_continue_in_parts(cap, count):
    """All entry ids are kept, in order, in as many parts as they need, and decode as one event."""
    ids = [f"entry_{number}" for number in range(count)]
    data = Stamp().line(encode_payload(convert({"operation": "STORE", "entry_ids": ids, "user_id": "u"}), cap))
    lines = data.splitlines(keepends=True)
    assert max(map(len, lines)) <= cap
    whole = decode(data)
    assert (whole.entry_ids, whole.user_id, whole.kind) == (ids, "u", None)
    parts = [decode(line) for line in lines[1:]]
    assert {(part.part_of, part.kind) for part in parts} <= {(whole.event_id, "part")}
    marks = whole.metadata.get(MARKS, {})
    assert marks == ({"entry_ids": f"continued in {len(parts)} parts"} if parts else {})


def test_overlong_entry_id_is_replaced_by_beginning_and_digest():
    """An entry id that is too long becomes its beginning and its digest, and a mark counts it."""
    long, short = "i" * (LONGEST_ID + 1), "i" * LONGEST_ID
    (line,) = lines_of({"operation": "STORE", "entry_ids": [long, short], "big": "x" * 40_000})
    digest = hashlib.sha256(long.encode()).hexdigest()
    assert line["entry_ids"] == [f"{long[:KEPT_CHARACTERS]}… 401 bytes, sha256 {digest}", short]
    assert line["metadata"][MARKS]["entry_ids"] == "cut: 1 ids"


def test_lone_surrogates_are_escaped_and_marked():
    """Text that UTF-8 cannot encode is written with escapes, in every member, and marked there."""
    bad, good = "a\ud800", "a\\ud800"
    (line,) = lines_of(
        dict.fromkeys(["operation", "user_id", "session_id", "error_message"], bad)
        | {"entry_ids": ["ok", bad], "metadata": {"k": bad, bad: 1}}
    )
    assert {line[name] for name in ("operation", "user_id", "session_id", "error_message")} == {good}
    assert line["entry_ids"] == ["ok", good]
    assert line["metadata"]["k"] == good
    assert line["metadata"][good] == 1
    assert line["metadata"][MARKS].keys() >= {"operation", "user_id", "session_id", "error_message", "entry_ids[1]"}


def test_character_that_needs_an_escape_has_a_known_first_byte():
    """The quick test for characters that need escapes knows the first byte of every one in Unicode."""
    for code in range(0x80, sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000 and codec._UNSAFE.match(chr(code)):
            assert not codec._is_safe(f"a{chr(code)}".encode())


@pytest.mark.parametrize("character", s.DANGEROUS)
@pytest.mark.parametrize("where", ["operation", "user_id", "entry_ids", "key", "value", "long"])
def test_dangerous_characters_are_escaped_and_decoded(character, where):
    """Characters that break lines or deceive terminals are written as escapes, and decode to themselves."""
    text = f"a{character}b"
    fields = {
        "operation": {"operation": text},
        "user_id": {"operation": "X", "user_id": text},
        "entry_ids": {"operation": "X", "entry_ids": [text]},
        "key": {"operation": "X", "metadata": {text: 1}},
        "value": {"operation": "X", "metadata": {"k": [text]}},
        "long": {"operation": "X", "metadata": {"k": text * 20_000}},
    }[where]
    data = b"{" + encode_payload(convert(fields), CAP)
    assert character not in data.decode()
    decoded = json.loads(data)
    if where == "long":
        assert decoded["metadata"]["k"] == (text * 20_000)[:KEPT_CHARACTERS]
    else:
        assert {name: decoded[name] for name in fields} == fields


def test_absent_members_are_omitted():
    """The line of a small event has only the given members, in the order of the export format."""
    (line,) = lines_of({"duration_ms": 1.5, "status": "FAILURE", "user_id": "u", "operation": "STORE", "x": 1})
    assert list(line) == ["event_id", "timestamp", "operation", "user_id", "metadata", "status", "duration_ms"]


# --- round trips -----------------------------------------------------------------------------------------------------


@given(s.well_typed)
@settings(max_examples=200, deadline=None)
def test_decoding_returns_every_member(fields):
    """For all well-typed events, decoding the line returns every member."""
    read = decode_event(Stamp().line(encode_payload(convert(fields), 1_000_000)))
    assert read.operation in (fields["operation"], fields["operation"].upper())
    assert read.user_id == fields.get("user_id")
    assert read.session_id == fields.get("session_id")
    assert read.entry_ids == fields.get("entry_ids", [])
    assert read.metadata == fields.get("metadata", {})
    assert read.error_message == fields.get("error_message")
    assert read.duration_ms == fields.get("duration_ms")
    assert read.status == (fields.get("status") or ("SUCCESS" if read.error_message is None else "FAILURE"))
    assert read.timestamp.tzinfo is not None


@given(
    st.builds(
        event,
        operation=st.sampled_from([OperationType.STORE, Operation("other")]),
        user_id=st.none() | s.texts,
        session_id=st.none() | s.texts,
        entry_ids=st.lists(s.texts, max_size=3),
        metadata=s.metadata,
        status=st.sampled_from(EventStatus),
        error_message=st.none() | s.texts,
        duration_ms=st.none() | s.durations,
        kind=st.none() | st.sampled_from(["gap", "trail", "unknown"]),
    )
)
@settings(max_examples=200, deadline=None)
def test_round_trip_of_an_event_is_stable(original):
    """For all events, decoding the encoded event returns that event, and encoding it again the same bytes."""
    line = encode_event(original)
    assert decode_event(line) == original
    assert encode_event(decode_event(line)) == line
    assert not set(line.decode()) & set(s.DANGEROUS)


@pytest.mark.parametrize("make", s.HOSTILE)
def test_constructed_event_encodes_with_any_metadata(make):
    """An event that an application constructed is encoded whatever its metadata contains."""
    line = encode_event(event(metadata={"k": make()}))
    assert json.loads(line, parse_constant=pytest.fail)["event_id"] == "evt_1"
    assert decode_event(line).metadata.keys() >= {"k"}


@pytest.mark.parametrize("value", [s.deep(40), [0] * 30_000], ids=["deep", "many"])
def test_event_at_a_limit_of_recording_is_not_shortened_again(value):
    """An event that holds as much as an event may, and the mark about the rest, is encoded again as it was recorded."""
    payload = convert({"operation": "X", "value": value, "later": 1})
    original = decode_event(Stamp().line(encode_payload(payload, 1_000_000)))
    assert decode_event(encode_event(original)) == original
    assert json.loads(to_json(original.metadata)) == original.metadata


@pytest.mark.parametrize("marks", [5, "text", [1], None, {"a": "b"}])
def test_foreign_member_named_like_the_marks_is_accepted(marks):
    """Another program's member under the name of the marks is kept if there is nothing to mark, and never raises."""
    kept = {MARKS: marks, "many": list(range(200))}
    assert decode_event(encode_event(event(metadata=kept))).metadata == kept
    cut = decode_event(encode_event(event(metadata={MARKS: marks, "b": b""}))).metadata
    assert cut[MARKS]["b"] == "replaced: bytes as base64"


def test_marks_are_added_to_existing_ones():
    """Marks of an earlier encoding stay when others are added."""
    read = decode_event(encode_event(event(metadata={MARKS: {"a": "cut"}, "b": b""}, user_id="\ud800")))
    assert read.metadata[MARKS].keys() == {"a", "b", "user_id"}


def test_encode_event_truncates_nothing():
    """An event with twenty thousand entry ids is encoded as one object."""
    ids = [f"e{number}" for number in range(20_000)]
    assert decode_event(encode_event(event(entry_ids=ids))).entry_ids == ids


# --- decoding errors -------------------------------------------------------------------------------------------------

HEAD = b'{"event_id":"evt_1","timestamp":"2025-01-15T10:30:45.123456Z"'


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        (b"", ["truncated"]),
        (b"\n", ["truncated"]),
        (b"{", ["truncated"]),
        (b"[]", ["Expected `object`, got `array`"]),
        (b"null", ["Expected `object`"]),
        (b"{}", ["missing required field `event_id`"]),
        (HEAD + b"}", ["missing required field `operation`"]),
        (HEAD + b',"operation":5}', ["member 'operation'", "Expected `str`, got `int`"]),
        (HEAD + b',"operation":"X","status":"DONE"}', ["member 'status'", "DONE"]),
        (HEAD + b',"operation":"X","entry_ids":[1]}', ["member 'entry_ids[0]'", "Expected `str`"]),
        (HEAD + b',"operation":"X","entry_ids":["a', ["truncated"]),
        (HEAD + b',"operation":"X","duration_ms":"1"}', ["member 'duration_ms'"]),
        (b'{"event_id":"evt_1","timestamp":"yesterday","operation":"X"}', ["member 'timestamp'", "Invalid"]),
        (b'{"event_id":"evt_1","timestamp":"2025-01-15T10:30:45","operation":"X"}', ["member 'timestamp'", "timezone"]),
        (HEAD + b',"operation":"\xff"}', ["utf-8"]),
        (
            HEAD + b',"operation":"X","metadata":{"k":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
            ["while deserializing"],
        ),
        (b"\n\n", ["truncated"]),
        (HEAD + b',"operation":"X"}\n\n' + HEAD + b',"operation":"X"}\n', ["truncated"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_decoding_error_names_line_member_and_reason(line, reasons):
    """Invalid bytes are refused; the message names the line, the member and the reason."""
    with pytest.raises(AuditDecodeError) as caught:
        decode(line, where="audit.jsonl:7")
    message = str(caught.value)
    assert message.startswith("audit.jsonl:7 is not an event: ")
    for reason in reasons:
        assert reason.lower() in message.lower()


def test_decoding_error_without_position_calls_it_line():
    """Without a position, the message refers to the line."""
    with pytest.raises(AuditDecodeError, match=r"^line is not an event: "):
        decode(b"{")


def test_part_of_another_event_is_refused():
    """Lines of different events do not decode as one."""
    lines = HEAD + b',"operation":"X"}\n' + HEAD + b',"part_of":"evt_2","operation":"X","kind":"part"}\n'
    with pytest.raises(AuditDecodeError, match=r"^a: part evt_1 does not belong to evt_1$"):
        decode(lines, where="a")
    with pytest.raises(AuditDecodeError, match=r"^line: part"):
        decode(lines)


@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: HEAD + b',"operation":"X"' + tail))
@settings(max_examples=200, deadline=None)
def test_decoding_raises_only_decode_errors(data):
    """For all bytes, decoding returns an event or raises `AuditDecodeError`."""
    try:
        decoded = decode(data)
    except AuditDecodeError:
        return
    assert decoded.event_id == "evt_1"


def test_unknown_members_are_ignored():
    """A line of a later version, with members unknown here, is still an event."""
    assert decode_event(HEAD + b',"operation":"store","writer":"w","seq":1}').operation is OperationType.STORE


# --- small things ----------------------------------------------------------------------------------------------------


@given(s.texts)
def test_encode_text_returns_one_line_of_json(text):
    """For all texts, the JSON string is one line and decodes to the text."""
    encoded = encode_text(text)
    assert json.loads(encoded) == text
    assert not set(encoded) & set(s.DANGEROUS)


@pytest.mark.parametrize("make", s.HOSTILE)
def test_to_json_accepts_any_value(make):
    """Whatever the value contains, its JSON text is valid and on one line."""
    text = to_json({"k": make()})
    json.loads(text, parse_constant=pytest.fail)
    assert "\n" not in text


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_encoding_propagates_signals(signal):
    """KeyboardInterrupt and SystemExit during the reading of a value propagate."""
    value = {"k": s.HostileMapping(signal())}
    with pytest.raises(signal):
        to_json(value)
    with pytest.raises(signal):
        encode_event(event(metadata=value))


def test_to_json_keeps_long_lists_whole():
    """A plain list is written whole, however many items it has."""
    ids = [f"e{number}" for number in range(20_000)]
    assert json.loads(to_json(ids)) == ids


def test_application_cannot_set_a_kind():
    """The struct of an application's events has no kind, so the fields of an event cannot forge one."""
    assert "kind" not in Payload.__struct_fields__
    assert TrailPayload.__struct_fields__ == (*Payload.__struct_fields__, "kind")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"operation": "X", "kind": "gap"}, Payload)


@pytest.mark.parametrize("value", [math.inf, math.nan, 2**63, [0] * 101, [[[0]]], {"a": {"b": {"c": 1}}}, object()])
def test_struct_refuses_unusual_metadata(value):
    """The struct refuses values that are not finite, too large or too deep, so `conversion` handles them by hand."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"operation": "X", "metadata": {"k": value}}, Payload)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.sampled_from([0, 3, 400]), max_size=5))
def test_events_decoded_at_once_equal_those_decoded_one_by_one(counts):
    """Any number of events, some in parts, decode at once as they do one by one."""
    stamp = Stamp()
    events = []
    for count in counts:
        payload = convert({"operation": "STORE", "entry_ids": [f"entry_{number}" for number in range(count)]})
        events.append(stamp.line(encode_payload(payload, MIN_EVENT_BYTES)))

    assert decode_all(events) == [decode(lines) for lines in events]


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 400))
def test_id_is_that_of_the_decoded_line(count):
    """The id that is cut from a line, or from the first of several, is that of its event."""
    payload = convert({"operation": "STORE", "entry_ids": [f"entry_{number}" for number in range(count)]})
    lines = Stamp().line(encode_payload(payload, MIN_EVENT_BYTES))
    assert id_of_line(lines) == decode(lines).event_id
