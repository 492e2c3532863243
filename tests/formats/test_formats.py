"""Tests of `structlog_audit.formats`, by the validators of the other systems where those exist."""

import base64
import datetime as dt
import functools
import json
import re
import shutil
import subprocess
import uuid
from http import HTTPStatus
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

from structlog_audit import AuditEvent, AuditLogger, EventStatus, OperationClasses, OperationType, export, open_trail
from structlog_audit._version import __version__
from structlog_audit.events import characters, operation_classes
from structlog_audit.events.characters import matching
from structlog_audit.events.event import Kind, operation_of, rfc3339
from structlog_audit.formats import FORMATS, to_cadf, to_cef, to_ecs, to_line, to_ocsf, to_otlp
from structlog_audit.formats.cadf import CADF, identifier
from structlog_audit.formats.cef import CEF
from structlog_audit.formats.ecs import ECS
from structlog_audit.formats.ocsf import OCSF
from structlog_audit.formats.otlp import ATTRIBUTES, RECORD

TOP = Path(__file__).parents[2]
GOLDEN = list(open_trail(TOP / "tests" / "golden" / "trail.jsonl").iter_events(kind=[None, *Kind]))
NOW = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)
TRACE = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}


def event(**members):
    """Return an event with defaults for all *members* that are not given."""
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
"""All events that a trail can contain."""


def restored(**members):
    """Return the event with these members, its time given as RFC 3339."""
    timestamp = dt.datetime.fromisoformat(members.pop("timestamp"))
    return AuditEvent(
        timestamp=timestamp,
        operation=operation_of(members.pop("operation")),
        status=EventStatus(members.pop("status")),
        **members,
    )


# --- every event can be read back from each format ---------------------------------------------------------------------


def from_ecs(record):
    """Return the event of an ECS document."""
    extra = record["audit"]
    return restored(
        event_id=record["event"]["id"],
        timestamp=record["@timestamp"],
        operation=record["event"]["action"],
        user_id=record.get("user", {}).get("id"),
        session_id=extra.get("session_id"),
        entry_ids=extra.get("entry_ids", []),
        metadata=extra.get("metadata", {}),
        status=extra["status"],
        error_message=record.get("error", {}).get("message"),
        duration_ms=extra.get("duration_ms"),
        kind=extra.get("kind"),
    )


def from_ocsf(record):
    """Return the event of an OCSF record."""
    actor, extra = record["actor"], record["unmapped"]
    return restored(
        event_id=record["metadata"]["uid"],
        timestamp=record["metadata"]["original_time"],
        operation=record["api"]["operation"],
        user_id=actor.get("user", {}).get("uid"),
        session_id=actor.get("session", {}).get("uid"),
        entry_ids=[resource["uid"] for resource in record.get("resources", [])],
        metadata=extra.get("metadata", {}),
        status=extra["status"],
        error_message=record.get("status_detail"),
        duration_ms=extra.get("duration_ms"),
        kind=extra.get("kind"),
    )


def from_cadf(record):
    """Return the event of a CADF record."""
    extra = {attachment["name"]: attachment["content"] for attachment in record["attachments"]}
    measurements = record.get("measurements", [])
    return restored(
        **{"entry_ids": [], "metadata": {}, **extra},
        timestamp=record["eventTime"],
        operation=record["name"],
        user_id=record["initiator"].get("name"),
        error_message=record.get("reason", {}).get("reasonCode"),
        duration_ms=measurements[0]["result"] if measurements else None,
    )


def value_of(value):
    """Return the Python value of an ``AnyValue``."""
    if not value:
        return None
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return [value_of(item) for item in inner["values"]]
    if kind == "kvlistValue":
        return attributes_of(inner["values"])
    return int(inner) if kind == "intValue" else inner


def attributes_of(pairs):
    """Return a list of OTLP attributes as a dictionary."""
    return {pair["key"]: value_of(pair["value"]) for pair in pairs}


def log_record(document):
    """Return the only log record of an OTLP document."""
    (record,) = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    return record


def from_otlp(document):
    """Return the event of an OTLP document."""
    record = log_record(document)
    attributes = attributes_of(record["attributes"])
    since_epoch = dt.timedelta(microseconds=int(record["timeUnixNano"]) // 1_000)
    return restored(
        event_id=attributes["log.record.uid"],
        timestamp=(dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + since_epoch).isoformat(),
        operation=record["eventName"],
        user_id=attributes.get("user.id"),
        session_id=attributes.get("session.id"),
        entry_ids=attributes.get("audit.entry_ids", []),
        metadata=attributes.get("audit.metadata", {}),
        status=attributes["audit.status"],
        error_message=attributes.get("exception.message"),
        duration_ms=attributes.get("audit.duration_ms"),
        kind=attributes.get("audit.kind"),
    )


FROM = {"ecs": from_ecs, "ocsf": from_ocsf, "cadf": from_cadf, "otlp": from_otlp}


@pytest.mark.parametrize("format", FROM)
@given(given=events)
@settings(max_examples=150)
def test_every_event_can_be_read_back(format, given):
    """For all events, a line is valid JSON on one line from which every member can be read back."""
    line = to_line(given, format)
    assert not set(line) & (set(s.DANGEROUS) | {"\n"})
    assert FROM[format](json.loads(line, parse_constant=pytest.fail)) == given


@pytest.mark.parametrize("format", FROM)
def test_the_golden_trail_can_be_read_back(format):
    """Every event of the golden trail, of every kind and with parts, can be read back unchanged."""
    assert [FROM[format](json.loads(to_line(one, format))) for one in GOLDEN] == GOLDEN


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("make", s.HOSTILE)
def test_event_with_hostile_values_is_exported_as_one_line(tmp_path, format, make):
    """An event that an application made with hostile values is exported as one line of valid text."""
    path = tmp_path / "out"
    export.export([event(metadata={"value": make()})], path, format=format, now=NOW)
    text = path.read_bytes().decode()
    assert text.count("\n") == 1
    if format != "cef":
        json.loads(text, parse_constant=pytest.fail)


def test_exports_offer_every_format():
    """The formats of exports are JSON, JSON Lines, CSV and those of all other systems."""
    assert list(export.WRITERS) == ["json", "jsonl", "csv", *FORMATS]


def test_an_event_source_exports_in_every_format(tmp_path):
    """`export_to_file` selects a format by the suffix or by ``format=``, and writes one line for every event."""
    log = AuditLogger()
    for user in ("u1", "u2"):
        log.record("STORE", user_id=user)
    for format in FORMATS:
        assert log.export_to_file(tmp_path / f"out.{format}") == 2
        assert log.export_to_file(tmp_path / "out.log", format=format, user_id="u2") == 1
        lines = (tmp_path / f"out.{format}").read_text().splitlines()
        assert lines == [to_line(one, format) for one in log.query_events(newest_first=False)]
        assert (tmp_path / "out.log").read_text() == f"{lines[1]}\n"


# --- mapping of operations, statuses and metadata ----------------------------------------------------------------------


ACTIVITIES = {
    "CreateUser": (["api"], ["creation"], 1, "Create", "create"),
    "user.read": (["api"], ["access"], 2, "Read", "read"),
    "report_exported": (["api"], ["access"], 2, "Read", "read"),
    "user.update": (["api"], ["change"], 3, "Update", "update"),
    "role.update": (["api", "iam"], ["change"], 3, "Update", "update"),
    "settings.update": (["api", "configuration"], ["change"], 3, "Update", "configure"),
    "DELETE /users/5": (["api"], ["deletion"], 4, "Delete", "delete"),
    "user_login_failed": (["api", "authentication"], ["info"], 99, "user_login_failed", "authenticate"),
    "job.start": (["api"], ["info"], 99, "job.start", "unknown"),
    "invoice.closed": (["api"], ["info"], 99, "invoice.closed", "unknown"),
}
"""By operation: category and type of ECS, activity of OCSF, action of CADF."""


@pytest.mark.parametrize("name", ACTIVITIES)
def test_class_of_the_operation_determines_activity_and_action(name):
    """The categories, activities and actions follow the shared classes of operations; without a class they are "other"."""
    one = event(operation=operation_of(name))
    ecs, ocsf = to_ecs(one)["event"], to_ocsf(one)
    found = (ecs["category"], ecs["type"], ocsf["activity_id"], ocsf["activity_name"], to_cadf(one)["action"])
    assert found == ACTIVITIES[name]


def test_formats_use_the_registered_classes(monkeypatch):
    """An operation that the application registered has its class in every format."""
    monkeypatch.setattr(operation_classes, "_registered", OperationClasses({"invoice.close": "delete"}))
    one = event(operation=operation_of("invoice.closed"))
    assert to_ecs(one)["event"]["type"] == ["deletion"]
    assert to_ocsf(one)["activity_id"] == 4
    assert to_cadf(one)["action"] == "delete"


@pytest.mark.parametrize("kind", Kind)
def test_library_events_have_no_activity(kind):
    """An event of the library, such as an intent, is not exported as a second creation or deletion."""
    one = event(operation=OperationType.FORGET, kind=kind.value)
    assert to_ecs(one)["event"]["type"] == ["info"]
    assert to_ocsf(one)["activity_id"] == 99
    assert to_cadf(one)["action"] == "unknown"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"status": EventStatus.SUCCESS}, ("success", 1, "success", "3", 9)),
        ({"status": EventStatus.FAILURE}, ("failure", 2, "failure", "7", 17)),
        ({"status": EventStatus.PARTIAL}, ("unknown", 99, "unknown", "5", 13)),
        ({"kind": "intent"}, ("unknown", 0, "pending", "3", 9)),
    ],
)
def test_status_maps_to_the_outcome_of_each_format(members, expected):
    """Each status has an outcome and severity in every format; an intent has no outcome yet."""
    one = event(**members)
    record = log_record(to_otlp(one))
    severity = header_of(to_cef(one))[6]
    found = (to_ecs(one)["event"]["outcome"], to_ocsf(one)["status_id"], to_cadf(one)["outcome"], severity)
    assert (*found, record["severityNumber"]) == expected


@pytest.mark.parametrize("name", ["client_address", "ip", "client_ip", "remote_addr"])
@pytest.mark.parametrize("value", ["203.0.113.7", "2001:db8::1"])
def test_client_address_maps_to_the_field_of_each_format(name, value):
    """A client address in the metadata also appears in the address field of each format."""
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
def test_invalid_address_stays_in_the_metadata(value):
    """A value that is not an IP address is not in an address field: Elasticsearch would reject the document."""
    one = event(metadata={"ip": value})
    assert "source" not in to_ecs(one)
    assert to_ocsf(one)["src_endpoint"] == {"name": "unknown"}
    assert not {"src", "c6a2"} & extension_of(to_cef(one)).keys()


def test_trace_and_span_map_to_the_fields_of_each_format():
    """A trace id and span id in the metadata also appear in the trace fields of each format."""
    ecs = to_ecs(FULL)
    record = log_record(to_otlp(FULL))
    assert (ecs["trace"]["id"], ecs["span"]["id"]) == (record["traceId"], record["spanId"]) == tuple(TRACE.values())
    assert to_ocsf(FULL)["metadata"]["correlation_uid"] == TRACE["trace_id"]


@pytest.mark.parametrize("trace", ["0" * 32, "4BF92F3577B34DA6A3CE929D0E0E4736", "4bf9", 5, None, "x" * 32])
def test_invalid_trace_id_stays_in_the_metadata(trace):
    """An id that W3C Trace Context does not allow is not in a trace field."""
    one = event(metadata={"trace_id": trace})
    assert "trace" not in to_ecs(one)
    assert "traceId" not in log_record(to_otlp(one))


def test_time_or_duration_beyond_64_bits_is_omitted():
    """A duration or time that exceeds the numbers of a format is omitted from its field, but can be read back."""
    one = event(duration_ms=1e300, timestamp=dt.datetime(9999, 1, 1, tzinfo=dt.UTC))
    assert "duration" not in to_ecs(one)["event"]
    assert "duration" not in to_ocsf(one)
    assert "timeUnixNano" not in log_record(to_otlp(one))
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
"""The ECS fields in use, with their types (elastic/ecs, generated/csv/fields.csv)."""
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
    """Yield the dotted names and values of all leaves of a nested dictionary."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_ecs_fields_have_their_types(one):
    """Every field is a required or known field of ECS with a value of its type, or is below ``audit``."""
    record = to_ecs(one)
    extra = record.pop("audit")
    assert extra.keys() <= {"session_id", "entry_ids", "metadata", "status", "duration_ms", "kind"}
    found = dict(flat(record))
    assert {"@timestamp", "log.level", "ecs.version"} <= found.keys() <= ECS_FIELDS.keys()
    for name, value in found.items():
        values = value if name in ECS_ARRAYS else [value]
        assert isinstance(value, list) is (name in ECS_ARRAYS)
        assert all(isinstance(item, int if ECS_FIELDS[name] == LONG else str) for item in values)


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_ecs_categorization_has_allowed_values(one):
    """Kind, category, type and outcome have values that ECS allows together."""
    found = dict(flat(to_ecs(one)))
    assert set(found["event.type"]) <= ECS_TYPES_OF_API
    assert found["event.outcome"] in {"success", "failure", "unknown"}
    assert found["event.kind"] == "event"
    assert set(found["event.category"]) <= {"api", "authentication", "configuration", "iam"}


@pytest.mark.parametrize(
    "one", [one for one in [FULL, *GOLDEN] if one.duration_ms is not None], ids=lambda one: one.event_id
)
def test_ecs_duration_is_in_nanoseconds(one):
    """The duration of an event is in nanoseconds."""
    assert to_ecs(one)["event"]["duration"] == pytest.approx(one.duration_ms * 1e6)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not available to install the ECS types of Elastic")
@pytest.mark.parametrize("version", ["8.11.0", "9.4.0"])
def test_ecs_matches_the_typescript_types_of_elastic(tmp_path, version):
    """Apart from ``audit`` and the version number, the golden trail matches the TypeScript types of Elastic."""
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
    """Return the validator of OCSF's schema of the class."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    name = schema.lookup_class_name_from_uid(class_uid=6003)
    return jsonschema.Draft202012Validator(schema.get_class_schema(class_name=name, profiles=[]))


@pytest.mark.parametrize("version", OCSF_VERSIONS)
def test_ocsf_is_valid_by_the_schema_of_each_version(version):
    """The golden trail, a minimal event and a full event are valid by the schema of each OCSF version."""
    for one in (FULL, event(), *GOLDEN):
        ocsf_validator(version).validate(to_ocsf(one))


@pytest.mark.parametrize("change", [{"activity_id": 7}, {"unknown_member": 1}], ids=lambda change: next(iter(change)))
def test_schema_of_ocsf_refuses_invalid_records(change):
    """The schema refuses an unknown activity and an unknown member."""
    assert not ocsf_validator("1.8.0").is_valid({**to_ocsf(FULL), **change})


def test_ocsf_record_has_the_members_of_the_event():
    """Each member of an event is in its place in the record, with the numbers and captions of OCSF."""
    product = {"name": "structlog-audit", "vendor_name": "structlog-audit", "version": __version__}
    assert to_ocsf(FULL) == {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "type_uid": 600301,
        "type_name": "API Activity: Create",
        "time": 1_736_937_045_123,
        "severity_id": 3,
        "severity": "Medium",
        "status_id": 2,
        "status": "Failure",
        "status_detail": "OSError: disk",
        "duration": 45,
        "metadata": {
            "version": "1.8.0",
            "product": product,
            "uid": FULL.event_id,
            "event_code": "STORE",
            "original_time": "2025-01-15T10:30:45.123456Z",
            "correlation_uid": TRACE["trace_id"],
        },
        "actor": {"user": {"uid": "ann"}, "session": {"uid": "s1"}},
        "api": {"operation": "STORE"},
        "src_endpoint": {"ip": "203.0.113.7"},
        "resources": [{"uid": "e1"}, {"uid": "e2"}],
        "unmapped": {"metadata": FULL.metadata, "status": "FAILURE", "duration_ms": 45.25},
    }


@pytest.mark.parametrize(("members", "user"), [
    ({"user_id": "ann"}, {"uid": "ann"}),
    ({"user_id": "ann", "kind": "intent"}, {"uid": "ann"}),
    ({}, {"name": "unknown", "type_id": 0}),
    ({"kind": "gap"}, {"name": "structlog-audit", "type_id": 3}),
])  # fmt: skip
def test_ocsf_actor_is_the_user_else_unknown_or_the_library(members, user):
    """Without a user, the actor of an application event is of type Unknown, and that of a library event of type System."""
    assert to_ocsf(event(**members))["actor"] == {"user": user}


@given(events)
@settings(max_examples=50)
def test_every_event_is_valid_ocsf(given):
    """For all events, the record is valid, and its type is composed of its class and activity."""
    record = json.loads(to_line(given, "ocsf"))
    ocsf_validator("1.8.0").validate(record)
    assert record["type_uid"] == 6003 * 100 + record["activity_id"]


# --- CADF ---------------------------------------------------------------------------------------------------------------


def cadf_resource(record):
    """Return the resource of pycadf with the members of *record*."""
    host = record.pop("host", None)
    return pycadf.resource.Resource(**record, **({"host": pycadf.host.Host(**host)} if host else {}))


def built(record):
    """Return the event of pycadf with the members of *record*. pycadf raises or warns for invalid members."""
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
def test_cadf_is_valid_for_pycadf(one):
    """pycadf accepts every member without a warning, considers the event valid, and writes the same record."""
    record = to_cadf(one)
    made = built(record)
    assert made.is_valid()
    assert made.as_dict() == record


def test_cadf_id_is_the_uuid_of_the_event_id():
    """The id of a CADF event is the UUID in the event id."""
    assert to_cadf(FULL)["id"] == "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c"


def test_cadf_identifier_of_a_uuid_is_that_uuid():
    """The identifier of a text that is a UUID is that UUID."""
    assert identifier("user", "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c") == "0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c"


@pytest.mark.parametrize("text", ["１" * 32, "\U00011f50" * 32, "0" * 31 + "_", "0_" * 16, " " + "0" * 31, "0-" * 32])
def test_cadf_identifier_of_a_text_like_a_uuid_is_that_of_a_text(text):
    """A text is a UUID only in its two forms of ASCII, whatever digits this Python knows."""
    assert uuid.UUID(identifier("user", text)).version == 5


def test_cadf_identifier_of_other_texts_is_constant_and_unique():
    """Equal texts of equal type have equal identifiers, and all others differ."""
    assert identifier("user", "ann") == identifier("user", "ann")
    assert len({identifier(kind, text) for kind in ("user", "entry") for text in ("ann", "bob", "", None)}) == 8


@pytest.mark.parametrize("entries", [[], ["e1"], ["e1", "e2"]])
def test_cadf_target_has_a_name_only_for_a_single_entry(entries):
    """A single entry is the target by its name; several entries are one target without a name."""
    target = to_cadf(event(entry_ids=entries))["target"]
    assert target.get("name") == (entries[0] if len(entries) == 1 else None)


# --- CEF ----------------------------------------------------------------------------------------------------------------


def header_of(line):
    """Return the seven parts of the header, and the extension. An unescaped pipe ends a part."""
    parts, part, escaped, left = [], "", False, line
    while len(parts) < 7:
        character, left = left[0], left[1:]
        if escaped:
            assert character in "\\|", f"invalid escape in the header: {character!r}"
            part, escaped = part + character, False
        elif character == "\\":
            escaped = True
        elif character == "|":
            parts, part = [*parts, part], ""
        else:
            part += character
    return [*parts, left]


def extension_of(line):
    """Return the members of the extension. A key begins after a space and ends at an equals sign."""
    text = header_of(line)[7]
    starts = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", text))
    ends = [found.start() for found in starts[1:]] + [len(text)]
    return {found[1]: unescaped(text[found.end() : end]) for found, end in zip(starts, ends, strict=True)}


def unescaped(text):
    """Return the text of an extension value; an invalid escape is an error."""
    assert not re.search(r"(?<!\\)(?:\\\\)*(?:=|\\[^\\=nr]|\\$)", text), f"badly escaped: {text!r}"
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text)


def from_cef(line):
    """Return the event of a CEF line."""
    found = extension_of(line)
    for key in found:
        assert not key.endswith("Label") or key.removesuffix("Label") in found
    labelled = {found[f"{key}Label"]: value for key, value in found.items() if f"{key}Label" in found}
    return restored(
        event_id=found["externalId"],
        timestamp=labelled["timestamp"],
        operation=found["act"],
        user_id=found.get("suid"),
        session_id=labelled.get("session_id"),
        entry_ids=json.loads(labelled.get("entry_ids", "[]")),
        metadata=json.loads(labelled.get("metadata", "{}")),
        status=labelled["status"],
        error_message=found.get("reason"),
        duration_ms=float(labelled["duration_ms"]) if "duration_ms" in labelled else None,
        kind=None if found["cat"] == "audit" else found["cat"],
    )


CONTROLS = [chr(code) for code in range(32)] + list(s.DANGEROUS)
ESCAPED = matching(*(value for name, value in vars(characters).items() if name.isupper()))
printable = st.text(st.characters().filter(lambda character: not ESCAPED.match(character)), max_size=12)
awkward = printable | st.text(st.sampled_from('ab =|\\\n\r"é😀nr'), max_size=12)
"""Texts that CEF can represent, all without characters that it escapes as JSON does, with many characters that need escapes."""


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
    """For all events of such texts, a parser of CEF reads the event back from one line."""
    line = to_line(given, "cef")
    assert "\n" not in line
    assert from_cef(line) == given

    # The header contains the operation and the severity.
    version, vendor, product, _, class_id, name, severity, _ = header_of(line)
    assert (version, vendor, product) == ("CEF:0", "structlog-audit", "structlog-audit")
    assert class_id == name == re.sub(r"[\r\n]+", " ", given.operation.value)
    assert 0 <= int(severity) <= 10


@given(events)
@settings(max_examples=150)
def test_cef_is_one_printable_line(given):
    """For all events, a line of CEF has no line break or control character, and its escapes are complete."""
    line = to_line(given, "cef")
    assert not set(line) & set(CONTROLS)
    assert extension_of(line)["outcome"] in {"success", "failure", "partial", "pending"}


def test_the_golden_trail_can_be_read_back_from_cef():
    """Every event of the golden trail can be read back from its line of CEF."""
    assert [from_cef(to_cef(one)) for one in GOLDEN] == GOLDEN


def test_cef_escapes_depend_on_the_part_of_the_line():
    """A pipe is escaped only in the header, an equals sign only in the extension, a backslash in both."""
    line = to_cef(event(operation=operation_of("a|b=c\\d"), user_id="u|v=w\\x\ny\x1b"))
    assert line.startswith("CEF:0|structlog-audit|structlog-audit|")
    assert r"|a\|b=c\\d|a\|b=c\\d|3|" in line
    assert r" suid=u|v\=w\\x\ny\\u001b " in line


@pytest.mark.parametrize("character", "\xad\u180e\u200b\u2061\u2065\u206a\u206f\ufeff\U000e0001\U000e0041")
def test_cef_escapes_invisible_characters_as_json_does(character):
    """An invisible character is escaped as in JSON in every member, so JSON in a custom string can be read back."""
    one = event(operation=operation_of(f"a{character}b"), user_id=character, metadata={character: character})
    line = to_cef(one)
    assert line.isascii()
    found = extension_of(line)
    assert json.loads(f'"{found["suid"]}"') == character
    assert json.loads(found["cs3"]) == one.metadata


@given(st.characters(categories=["Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"]))
@settings(max_examples=300)
def test_cef_escapes_the_listed_characters_only(character):
    """For all characters, an escape depends on the table of characters, not on the Unicode of this Python."""
    is_escaped = f"suid={character} " not in to_cef(event(user_id=character))
    assert is_escaped is bool(ESCAPED.match(character))


# --- OTLP ---------------------------------------------------------------------------------------------------------------


def parsed(line):
    """Return the protobuf message of *line*; an unknown member is an error."""
    document = json.loads(line)
    record = log_record(document)

    # Ids are hexadecimal in OTLP/JSON, but base64 in the JSON form of protobuf.
    for name in {"traceId", "spanId"} & record.keys():
        record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()
    return json_format.ParseDict(document, LogsData())


@pytest.mark.parametrize("one", [FULL, event(), *GOLDEN], ids=lambda one: one.event_id)
def test_otlp_message_has_the_members_of_the_event(one):
    """The protobuf message of OpenTelemetry has the name, time, severity, span and attributes of the event."""
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
    """For all events, the record is a valid protobuf message."""
    assert parsed(to_line(given, "otlp")).resource_logs


@pytest.mark.parametrize("year", [1969, 2555])
def test_otlp_time_that_64_bits_cannot_hold_is_an_attribute(year):
    """A time before 1970 or after 2554 is in an attribute; any other is in the record only."""
    one = event(timestamp=NOW.replace(year=year))
    attributes = attributes_of(log_record(to_otlp(one))["attributes"])
    assert attributes["audit.timestamp"] == rfc3339(one.timestamp)
    assert "audit.timestamp" not in attributes_of(log_record(to_otlp(event()))["attributes"])
    assert parsed(to_line(one, "otlp"))


def test_otlp_integer_beyond_64_bits_is_text():
    """An integer that exceeds the range of OTLP becomes text."""
    one = event(metadata={"large": 2**64 - 1, "small": -(2**63)})
    assert from_otlp(to_otlp(one)).metadata == {"large": str(2**64 - 1), "small": -(2**63)}


def test_otlp_accepts_a_subclass_of_int():
    """A value of a subclass of int is exported as its number."""
    one = event(metadata={"code": HTTPStatus.OK})
    assert from_otlp(to_otlp(one)).metadata == {"code": 200}


# --- the tables and the guide -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", [ECS, OCSF, CADF, CEF, RECORD, ATTRIBUTES], ids=["ecs", "ocsf", "cadf", "cef", "otlp", "attributes"]
)
def test_guide_lists_every_member(table):
    """The guide lists every member of every table."""
    page = (TOP / "examples" / "guide" / "formats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`\n]+)`", page))
    assert set(table) <= named


def test_times_are_in_utc():
    """The time of an event is in UTC in every format, whatever its zone was."""
    here = dt.datetime(2025, 1, 15, 11, 30, 45, 123456, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    one = event(timestamp=here)
    assert to_ecs(one)["@timestamp"] == rfc3339(NOW)
    assert to_ocsf(one)["time"] == 1736937045123
    assert to_cadf(one)["eventTime"] == "2025-01-15T10:30:45.123456+00:00"
    assert log_record(to_otlp(one))["timeUnixNano"] == "1736937045123456000"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_number_that_is_not_finite_is_text_in_otlp(value):
    """A number that is not finite becomes text, so the JSON stays valid."""
    line = to_line(event(metadata={"x": value}), "otlp")
    assert json.loads(line, parse_constant=pytest.fail)
    assert f'"stringValue":"{value}"' in line


def test_cef_escapes_characters_without_width():
    """Characters without width are escaped."""
    assert to_cef(event(user_id="u\ufeff\u200b\u2060")).isprintable()
