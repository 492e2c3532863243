"""Tests of `structlog_audit.formats`: events in the formats of other systems, judged by what those systems offer for it."""

import base64
import datetime as dt
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pycadf.attachment
import pycadf.event
import pycadf.host
import pycadf.measurement
import pycadf.metric
import pycadf.reason
import pycadf.resource
import pytest
import strategies as s
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from structlog_audit import AuditEvent, AuditLogger, EventStatus, OperationType, export, open_trail
from structlog_audit.events.event import Kind, operation_of, rfc3339
from structlog_audit.formats import FORMATS, to_cadf, to_cef, to_ecs, to_line, to_ocsf, to_otlp
from structlog_audit.formats.cadf import CADF, identifier
from structlog_audit.formats.cef import CEF
from structlog_audit.formats.ecs import ECS
from structlog_audit.formats.field_mapping import VERBS, verb_of
from structlog_audit.formats.ocsf import OCSF
from structlog_audit.formats.otlp import ATTRIBUTES, RECORD

TOP = Path(__file__).parents[2]
GOLDEN = list(open_trail(TOP / "tests" / "golden" / "trail.jsonl").iter_events(kind=[None, *Kind]))
NOW = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)
TRACE = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}


def event(**members):
    return AuditEvent(**{"event_id": "evt_1", "timestamp": NOW, "operation": OperationType.STORE, **members})


FULL = event(
    event_id="evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c",
    user_id="ann",
    session_id="s1",
    entry_ids=["e1", "e2"],
    metadata={"ip": "203.0.113.7", "tags": ["a"], **TRACE},
    status=EventStatus.FAILURE,
    error_message="OSError: disk",
    duration_ms=45.25,
)

optional_texts = st.none() | s.texts
events = st.builds(
    AuditEvent,
    event_id=s.texts,
    timestamp=st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2500, 1, 1), timezones=st.just(dt.UTC)),
    operation=s.operations.map(operation_of),
    user_id=optional_texts,
    session_id=optional_texts,
    entry_ids=st.lists(s.texts, max_size=4),
    metadata=s.metadata,
    status=st.sampled_from(EventStatus),
    error_message=optional_texts,
    duration_ms=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    kind=st.none() | st.sampled_from([kind.value for kind in Kind]),
)
"""Whatever a trail can hold."""


def restored(**members):
    """The event with these members; a time is RFC 3339."""
    moment = dt.datetime.fromisoformat(members.pop("timestamp"))
    return AuditEvent(
        timestamp=moment,
        operation=operation_of(members.pop("operation")),
        status=EventStatus(members.pop("status")),
        **members,
    )


# --- nothing is lost: every event can be read back from each format ----------------------------------------------------


def from_ecs(record):
    own = record["audit"]
    return restored(
        event_id=record["event"]["id"],
        timestamp=record["@timestamp"],
        operation=record["event"]["action"],
        user_id=record.get("user", {}).get("id"),
        session_id=own.get("session_id"),
        entry_ids=own.get("entry_ids", []),
        metadata=own.get("metadata", {}),
        status=own["status"],
        error_message=record.get("error", {}).get("message"),
        duration_ms=own.get("duration_ms"),
        kind=own.get("kind"),
    )


def from_ocsf(record):
    actor, own = record["actor"], record["unmapped"]
    return restored(
        event_id=record["metadata"]["uid"],
        timestamp=record["metadata"]["original_time"],
        operation=record["api"]["operation"],
        user_id=actor.get("user", {}).get("uid"),
        session_id=actor.get("session", {}).get("uid"),
        entry_ids=[resource["uid"] for resource in record.get("resources", [])],
        metadata=own.get("metadata", {}),
        status=own["status"],
        error_message=record.get("status_detail"),
        duration_ms=own.get("duration_ms"),
        kind=own.get("kind"),
    )


def from_cadf(record):
    own = {attachment["name"]: attachment["content"] for attachment in record["attachments"]}
    measurements = record.get("measurements", [])
    return restored(
        **{"entry_ids": [], "metadata": {}, **own},
        timestamp=record["eventTime"],
        operation=record["name"],
        user_id=record["initiator"].get("name"),
        error_message=record.get("reason", {}).get("reasonCode"),
        duration_ms=measurements[0]["result"] if measurements else None,
    )


def value_of(value):
    """What an ``AnyValue`` says."""
    if not value:
        return None
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return [value_of(item) for item in inner["values"]]
    if kind == "kvlistValue":
        return attributes_of(inner["values"])
    return int(inner) if kind == "intValue" else inner


def attributes_of(pairs):
    return {pair["key"]: value_of(pair["value"]) for pair in pairs}


def from_otlp(record):
    (found,) = record["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    own = attributes_of(found["attributes"])
    since = dt.timedelta(microseconds=int(found["timeUnixNano"]) // 1_000)
    return restored(
        event_id=own["log.record.uid"],
        timestamp=(dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + since).isoformat(),
        operation=found["eventName"],
        user_id=own.get("user.id"),
        session_id=own.get("session.id"),
        entry_ids=own.get("audit.entry_ids", []),
        metadata=own.get("audit.metadata", {}),
        status=own["audit.status"],
        error_message=own.get("exception.message"),
        duration_ms=own.get("audit.duration_ms"),
        kind=own.get("audit.kind"),
    )


FROM = {"ecs": from_ecs, "ocsf": from_ocsf, "cadf": from_cadf, "otlp": from_otlp}


@pytest.mark.parametrize("format", FROM)
@given(given=events)
@settings(max_examples=150)
def test_every_event_can_be_read_back(format, given):
    """For all events, the line of a format is one line of valid JSON that still says every member of the event."""
    line = to_line(given, format)
    assert not set(line) & (set(s.DANGEROUS) | {"\n"})
    assert FROM[format](json.loads(line, parse_constant=pytest.fail)) == given


@pytest.mark.parametrize("format", FROM)
def test_the_golden_trail_can_be_read_back(format):
    """Every event of the golden trail, with parts and of every kind, is the same when it comes back."""
    assert [FROM[format](json.loads(to_line(one, format))) for one in GOLDEN] == GOLDEN


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("make", s.HOSTILE)
def test_events_of_any_values_are_exported(tmp_path, format, make):
    """Whatever somebody put into an event of their own making, an export of it is one line of valid text."""
    path = tmp_path / "out"
    export.export([event(metadata={"value": make()})], path, format=format, now=NOW)
    text = path.read_bytes().decode()
    assert text.count("\n") == 1
    if format != "cef":
        json.loads(text, parse_constant=pytest.fail)


def test_every_export_format_is_there():
    """The formats of exports are those of a trail, a document and a table, and all of other systems."""
    assert list(export.FORMATS) == ["json", "jsonl", "csv", *FORMATS]


def test_an_event_source_exports_in_every_format(tmp_path):
    """``export_to_file`` takes a format by the suffix or by ``format=``, one line for every event."""
    log = AuditLogger()
    for user in ("u1", "u2"):
        log.record("STORE", user_id=user)
    for format in FORMATS:
        assert log.export_to_file(tmp_path / f"out.{format}") == 2
        assert log.export_to_file(tmp_path / "out.log", format=format, user_id="u2") == 1
        lines = (tmp_path / f"out.{format}").read_text().splitlines()
        assert lines == [to_line(one, format) for one in log.query_events(newest_first=False)]
        assert (tmp_path / "out.log").read_text() == f"{lines[1]}\n"


# --- what an operation and a status are elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in VERBS.items() for name in names])
def test_verbs(verb, name):
    """A name of the table says what is done, in any case, alone or as the last word of a dotted name."""
    for written in (name, name.upper(), f"user.{name}", f"a:b/{name.title()}"):
        assert verb_of(event(operation=operation_of(written))) == verb


@pytest.mark.parametrize("name", ["login", "delete_user", "deleted", "undelete", "delete.failed", "store ", "", "."])
def test_other_names_say_nothing(name):
    """A name that is not exactly one of the table is another activity: nothing is guessed."""
    assert verb_of(event(operation=operation_of(name))) == "other"


@pytest.mark.parametrize("kind", Kind)
def test_events_of_the_library_are_no_deeds(kind):
    """An event of the library's own, an intent before all, is no second creation or deletion."""
    own = event(operation=OperationType.FORGET, kind=kind.value)
    assert to_ecs(own)["event"]["type"] == ["info"]
    assert to_ocsf(own)["activity_id"] == 99
    assert to_cadf(own)["action"] == "unknown"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"status": EventStatus.SUCCESS}, ("success", 1, "success", "3", 9)),
        ({"status": EventStatus.FAILURE}, ("failure", 2, "failure", "7", 17)),
        ({"status": EventStatus.PARTIAL}, ("unknown", 99, "unknown", "5", 13)),
        ({"kind": "intent"}, ("unknown", 0, "pending", "3", 9)),
    ],
)
def test_outcomes(members, expected):
    """A status is an outcome in the words of the other system; an intent has none yet."""
    one = event(**members)
    (record,) = to_otlp(one)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    severity = header_of(to_cef(one))[6]
    found = (to_ecs(one)["event"]["outcome"], to_ocsf(one)["status_id"], to_cadf(one)["outcome"], severity)
    assert (*found, record["severityNumber"]) == expected


@pytest.mark.parametrize("name", ["client_address", "ip", "client_ip", "remote_addr"])
@pytest.mark.parametrize("value", ["203.0.113.7", "2001:db8::1"])
def test_addresses(name, value):
    """The address of a client in the metadata is where the other system looks for it."""
    one = event(metadata={name: value})
    cef = extension_of(to_cef(one))
    assert to_ecs(one)["source"] == {"ip": value}
    assert to_ocsf(one)["src_endpoint"] == {"ip": value}
    assert to_cadf(one)["initiator"]["host"] == {"address": value}
    assert from_otlp(to_otlp(one)).metadata == {name: value}
    assert (cef.get("src"), cef.get("c6a2"), "c6a2Label" in cef) == (
        (None, value, True) if ":" in value else (value, None, False)
    )


@pytest.mark.parametrize("value", ["somewhere", "", 7, None, ["203.0.113.7"], "203.0.113.7:80", "999.1.1.1"])
def test_what_is_no_address_is_only_metadata(value):
    """A value that is no IP address takes no place of one: Elasticsearch would refuse the document."""
    one = event(metadata={"ip": value})
    assert "source" not in to_ecs(one)
    assert to_ocsf(one)["src_endpoint"] == {"name": "unknown"}
    assert not {"src", "c6a2"} & extension_of(to_cef(one)).keys()


def test_traces():
    """A trace and a span in the metadata are those of the record."""
    ecs = to_ecs(FULL)
    (record,) = to_otlp(FULL)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert (ecs["trace"]["id"], ecs["span"]["id"]) == (record["traceId"], record["spanId"]) == tuple(TRACE.values())
    assert to_ocsf(FULL)["metadata"]["correlation_uid"] == TRACE["trace_id"]


@pytest.mark.parametrize("trace", ["0" * 32, "4BF92F3577B34DA6A3CE929D0E0E4736", "4bf9", 5, None, "x" * 32])
def test_what_is_no_trace_is_only_metadata(trace):
    """An id that W3C Trace Context does not allow takes no place of one."""
    one = event(metadata={"trace_id": trace})
    assert "trace" not in to_ecs(one)
    assert "traceId" not in to_otlp(one)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def test_what_64_bits_do_not_hold_is_left_out():
    """A duration or time that the other system's numbers can't say is left out there; ours is kept."""
    one = event(duration_ms=1e300, timestamp=dt.datetime(9999, 1, 1, tzinfo=dt.UTC))
    assert "duration" not in to_ecs(one)["event"]
    assert "duration" not in to_ocsf(one)
    assert "timeUnixNano" not in to_otlp(one)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert from_ecs(to_ecs(one)) == from_ocsf(to_ocsf(one)) == one


# --- ECS ----------------------------------------------------------------------------------------------------------------

KEYWORD, DATE, LONG, IP, TEXT = "keyword", "date", "long", "ip", "match_only_text"
ECS_FIELDS = {
    "@timestamp": DATE,
    "ecs.version": KEYWORD,
    "error.message": TEXT,
    "event.action": KEYWORD,
    "event.category": KEYWORD,
    "event.duration": LONG,
    "event.id": KEYWORD,
    "event.kind": KEYWORD,
    "event.outcome": KEYWORD,
    "event.provider": KEYWORD,
    "event.type": KEYWORD,
    "log.level": KEYWORD,
    "message": TEXT,
    "related.user": KEYWORD,
    "source.ip": IP,
    "span.id": KEYWORD,
    "trace.id": KEYWORD,
    "user.id": KEYWORD,
}
"""The fields that are used, with their types (elastic/ecs, generated/csv/fields.csv)."""
ECS_ARRAYS = {"event.category", "event.type", "related.user"}
ECS_TYPES_OF_API = {
    "access",
    "admin",
    "allowed",
    "change",
    "creation",
    "deletion",
    "denied",
    "end",
    "info",
    "start",
    "user",
}


def flat(record, path=""):
    for name, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_ecs(one):
    """Every field is one of ECS and of its type, or below ``audit``; those are there that ecs-logging requires."""
    record = to_ecs(one)
    own = record.pop("audit")
    assert own.keys() <= {"session_id", "entry_ids", "metadata", "status", "duration_ms", "kind"}
    found = dict(flat(record))
    assert {"@timestamp", "log.level", "ecs.version"} <= found.keys() <= ECS_FIELDS.keys()
    for name, value in found.items():
        values = value if name in ECS_ARRAYS else [value]
        assert isinstance(value, list) is (name in ECS_ARRAYS)
        assert all(isinstance(item, int if ECS_FIELDS[name] == LONG else str) for item in values)
    assert set(found["event.type"]) <= ECS_TYPES_OF_API
    assert found["event.outcome"] in {"success", "failure", "unknown"}
    assert (found["event.kind"], found["event.category"]) == ("event", ["api"])
    if one.duration_ms is not None:
        assert found["event.duration"] == pytest.approx(one.duration_ms * 1e6)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm: the ECS types of Elastic can't be installed")
@pytest.mark.parametrize("version", ["8.11.0", "9.4.0"])
def test_ecs_by_its_types(tmp_path, version):
    """The golden trail is, but for ``audit`` and a later version's number, of the TypeScript types that Elastic publishes."""
    types = f"@elastic/ecs@{version.rpartition('.')[0]}"
    subprocess.run(["npm", "install", "--silent", types, "typescript@5"], cwd=tmp_path, check=True)
    records = [{**to_ecs(one), "ecs": {"version": version}} for one in [FULL, *GOLDEN]]
    assert version != "8.11.0" or to_ecs(FULL)["ecs"] == records[0]["ecs"]
    for record in records:
        del record["audit"]
    command = [tmp_path / "node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "events.ts"]

    def checked(documents):
        text = "".join(f"export const e{n}: Ecs = {json.dumps(one)};\n" for n, one in enumerate(documents))
        (tmp_path / "events.ts").write_text(f"import type {{ Ecs }} from '@elastic/ecs';\n{text}")
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = checked(records)
    assert done.returncode == 0, done.stdout
    assert checked([{**records[0], "nothing_of_ecs": 1}]).returncode != 0


# --- OCSF ---------------------------------------------------------------------------------------------------------------

OCSF_VERSIONS = ["1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0", "1.8.0"]


@functools.cache
def ocsf_validator(version):
    """OCSF's own schema of the class, as JSON Schema."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    name = schema.lookup_class_name_from_uid(class_uid=6003)
    return jsonschema.Draft202012Validator(schema.get_class_schema(class_name=name, profiles=[]))


@pytest.mark.parametrize("version", OCSF_VERSIONS)
def test_ocsf(version):
    """The golden trail, and an event with nothing and with everything, are valid by the schema of each version."""
    for one in (FULL, event(), *GOLDEN):
        ocsf_validator(version).validate(to_ocsf(one))


def test_the_schema_of_ocsf_finds_errors():
    """The judge judges: an activity that there is not, and a member that there is not, are found."""
    assert not ocsf_validator("1.8.0").is_valid({**to_ocsf(FULL), "activity_id": 7})
    assert not ocsf_validator("1.8.0").is_valid({**to_ocsf(FULL), "nothing_of_ocsf": 1})


@given(events)
@settings(max_examples=50)
def test_every_event_is_valid_ocsf(given):
    """For all events, the record is valid, and its type is that of its class and activity."""
    record = json.loads(to_line(given, "ocsf"))
    ocsf_validator("1.8.0").validate(record)
    assert record["type_uid"] == 6003 * 100 + record["activity_id"]


# --- CADF ---------------------------------------------------------------------------------------------------------------


def cadf_resource(record):
    host = record.pop("host", None)
    return pycadf.resource.Resource(**record, **({"host": pycadf.host.Host(**host)} if host else {}))


def built(record):
    """The event of pycadf with what *record* says. pycadf raises for, or warns of, whatever it takes for wrong."""
    record = json.loads(json.dumps(record))
    assert record.pop("typeURI") == pycadf.event.TYPE_URI_EVENT
    attachments, measurements = record.pop("attachments"), record.pop("measurements", [])
    for name in ("initiator", "target", "observer"):
        record[name] = cadf_resource(record[name])
    if "reason" in record:
        record["reason"] = pycadf.reason.Reason(**record["reason"])
    made = pycadf.event.Event(**record)
    for one in measurements:
        metric = pycadf.metric.Metric(**one.pop("metric"))
        made.add_measurement(pycadf.measurement.Measurement(**one, metric=metric))
    for one in attachments:
        made.add_attachment(pycadf.attachment.Attachment(**one))
    return made


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_cadf(one):
    """pycadf takes every member, without a warning, holds the event for valid, and writes the same."""
    record = to_cadf(one)
    made = built(record)
    assert made.is_valid()
    assert made.as_dict() == record


def test_cadf_identifiers():
    """Identifiers are UUIDs: that of an id of ours, of a text that is one, and else one that each text always gets."""
    assert to_cadf(FULL)["id"] == "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c"
    assert identifier("user", "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c") == "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c"
    assert identifier("user", "ann") == identifier("user", "ann")
    assert len({identifier(what, text) for what in ("user", "entry") for text in ("ann", "bob", "", None)}) == 8


@pytest.mark.parametrize("entries", [[], ["e1"], ["e1", "e2"]])
def test_cadf_targets(entries):
    """One entry is the target by its name; several are one target without a name."""
    target = to_cadf(event(entry_ids=entries))["target"]
    assert target.get("name") == (entries[0] if len(entries) == 1 else None)


# --- CEF ----------------------------------------------------------------------------------------------------------------


def header_of(line):
    """The seven parts of the header and the extension: a pipe ends a part, unless a backslash is before it."""
    parts, part, escaped, left = [], "", False, line
    while len(parts) < 7:
        character, left = left[0], left[1:]
        if escaped:
            assert character in "\\|", f"an escape that a header does not have: {character!r}"
            part, escaped = part + character, False
        elif character == "\\":
            escaped = True
        elif character == "|":
            parts, part = [*parts, part], ""
        else:
            part += character
    return [*parts, left]


def extension_of(line):
    """The members of the extension: a key begins after a space and ends at an equals sign that no backslash is before."""
    text = header_of(line)[7]
    starts = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", text))
    ends = [found.start() for found in starts[1:]] + [len(text)]
    return {found[1]: unescaped(text[found.end() : end]) for found, end in zip(starts, ends, strict=True)}


def unescaped(text):
    assert not re.search(r"(?<!\\)(?:\\\\)*(?:=|\\[^\\=nr]|\\$)", text), f"badly escaped: {text!r}"
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text)


def from_cef(line):
    found = extension_of(line)
    for key in found:
        assert not key.endswith("Label") or key.removesuffix("Label") in found
    own = {found[f"{key}Label"]: value for key, value in found.items() if f"{key}Label" in found}
    return restored(
        event_id=found["externalId"],
        timestamp=own["timestamp"],
        operation=found["act"],
        user_id=found.get("suid"),
        session_id=own.get("session_id"),
        entry_ids=json.loads(own.get("entry_ids", "[]")),
        metadata=json.loads(own.get("metadata", "{}")),
        status=own["status"],
        error_message=found.get("reason"),
        duration_ms=float(own["duration_ms"]) if "duration_ms" in own else None,
        kind=None if found["cat"] == "audit" else found["cat"],
    )


CONTROLS = [chr(code) for code in range(32)] + list(s.DANGEROUS)
said = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=s.DANGEROUS), max_size=12)
awkward = said | st.text(st.sampled_from('ab =|\\\n\r"é😀nr'), max_size=12)
"""Texts that CEF can say: all but control characters, with what it escapes more often than elsewhere."""


@given(
    st.builds(
        AuditEvent,
        event_id=awkward,
        timestamp=st.just(NOW),
        operation=awkward.map(operation_of),
        user_id=st.none() | awkward,
        session_id=st.none() | awkward,
        entry_ids=st.lists(awkward, max_size=3),
        metadata=s.metadata,
        status=st.sampled_from(EventStatus),
        error_message=st.none() | awkward,
        duration_ms=st.none() | s.durations,
        kind=st.none() | st.sampled_from([kind.value for kind in Kind]),
    )
)
@settings(max_examples=300)
def test_cef_can_be_read_back(given):
    """For all events of such texts, a parser of CEF gets the event back, and the header says the operation and the severity."""
    line = to_line(given, "cef")
    assert "\n" not in line
    assert from_cef(line) == given
    version, vendor, product, _, class_id, name, severity, _ = header_of(line)
    assert (version, vendor, product) == ("CEF:0", "structlog-audit", "structlog-audit")
    assert class_id == name == re.sub(r"[\r\n]+", " ", given.operation.value)
    assert 0 <= int(severity) <= 10


@given(events)
@settings(max_examples=150)
def test_cef_is_one_printable_line(given):
    """For all events, a line of CEF has no character that breaks it or that a terminal obeys, and its escapes are whole."""
    line = to_line(given, "cef")
    assert not set(line) & set(CONTROLS)
    assert extension_of(line)["outcome"] in {"success", "failure", "partial", "pending"}


def test_the_golden_trail_in_cef():
    """Every event of the golden trail comes back from its line of CEF."""
    assert [from_cef(to_cef(one)) for one in GOLDEN] == GOLDEN


def test_cef_escapes():
    """A pipe is escaped in the header alone, an equals sign in the extension alone, a backslash in both."""
    line = to_cef(event(operation=operation_of("a|b=c\\d"), user_id="u|v=w\\x\ny\x1b"))
    assert line.startswith("CEF:0|structlog-audit|structlog-audit|")
    assert r"|a\|b=c\\d|a\|b=c\\d|3|" in line
    assert r" suid=u|v\=w\\x\ny\\u001b " in line


# --- OTLP ---------------------------------------------------------------------------------------------------------------


def parsed(line):
    """The message that *line* says; an unknown member is an error. Ids are hexadecimal in OTLP, and base64 in protobuf."""
    document = json.loads(line)
    (record,) = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for name in {"traceId", "spanId"} & record.keys():
        record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()
    return json_format.ParseDict(document, LogsData())


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_otlp(one):
    """The protobuf message of OpenTelemetry takes every member, and says the time, the name, the severity and the span."""
    (record,) = parsed(to_line(one, "otlp")).resource_logs[0].scope_logs[0].log_records
    assert record.event_name == record.body.string_value == one.operation
    assert record.time_unix_nano == record.observed_time_unix_nano
    assert dt.datetime.fromtimestamp(record.time_unix_nano // 10**9, dt.UTC) == one.timestamp.replace(microsecond=0)
    assert record.severity_text in {"INFO", "WARN", "ERROR"}
    assert record.trace_id.hex() == one.metadata.get("trace_id", "")
    assert record.span_id.hex() == one.metadata.get("span_id", "")
    found = {pair.key for pair in record.attributes}
    assert {"log.record.uid", "audit.status"} <= found <= ATTRIBUTES.keys()


@given(events)
@settings(max_examples=50)
def test_every_event_is_valid_otlp(given):
    """For all events, the protobuf message takes the record."""
    assert parsed(to_line(given, "otlp")).resource_logs


def test_otlp_numbers_beyond_64_bits():
    """An integer that OTLP can't say as one is a text."""
    one = event(metadata={"large": 2**64 - 1, "small": -(2**63)})
    assert from_otlp(to_otlp(one)).metadata == {"large": str(2**64 - 1), "small": -(2**63)}


# --- the tables and the guide -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", [ECS, OCSF, CADF, CEF, RECORD, ATTRIBUTES], ids=["ecs", "ocsf", "cadf", "cef", "otlp", "attributes"]
)
def test_the_guide_has_every_member(table):
    """The guide names every member of every table."""
    page = (TOP / "examples" / "guide" / "formats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`\n]+)`", page))
    assert set(table) <= named


def test_times_are_those_of_the_event():
    """A time is the event's own, in UTC, whatever zone it was given in."""
    here = dt.datetime(2025, 1, 15, 11, 30, 45, 123456, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    one = event(timestamp=here)
    assert to_ecs(one)["@timestamp"] == rfc3339(NOW)
    assert to_ocsf(one)["time"] == 1736937045123
    assert to_cadf(one)["eventTime"] == "2025-01-15T10:30:45.123456+00:00"
    assert to_otlp(one)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["timeUnixNano"] == "1736937045123456000"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_for_json_is_a_text_in_otlp(value):
    """A value that is not finite, in an event made by hand, makes no invalid JSON."""
    line = to_line(event(metadata={"x": value}), "otlp")
    assert json.loads(line, parse_constant=pytest.fail)
    assert f'"stringValue":"{value}"' in line


def test_a_line_of_cef_hides_nothing():
    """What has no width is written as an escape."""
    assert to_cef(event(user_id="u\ufeff\u200b\u2060")).isprintable()
