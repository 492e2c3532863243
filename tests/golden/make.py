"""The maker of the golden trail and its questions, independent of the library: ``python tests/golden/make.py``.

* The trail is written below, one call per event, with fixed ids and times. The answers come from the naive filter below,
  and were reviewed by hand before they were committed.
* ``questions.json`` serves any engine: ``method`` is a method of `EventSource`, filters are JSON, times RFC 3339, answers are
  event ids in the requested order, counts, or members of the statistics. Percentiles are exact (nearest rank); an engine may
  deviate by 1 %.
* An ``error`` is the built-in exception that the question must raise.
"""

import datetime as dt
import json
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
BEGIN = dt.datetime(2025, 1, 15, 10, 30, tzinfo=dt.UTC)
DANGEROUS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SIX = ["STORE", "RECALL", "FORGET", "COMPACT", "EXPORT", "IMPORT"]
CLASSES = {"STORE": "create", "IMPORT": "create", "RECALL": "read", "COMPACT": "update", "EXPORT": "export",
           **dict.fromkeys(["FORGET", "delete", "Delete"], "delete"), "login": "login",
           "audit.verify": "other"}  # fmt: skip
ALL_KINDS = [None, "intent", "gap", "checkpoint", "part", "trail"]

LINES = []


def event_id(number):
    """Return a UUIDv7 of 10:30 that counts up, whatever the time of the event."""
    return f"evt_{int(BEGIN.timestamp() * 1000) + number:012x}7001{0x80000001:08x}{number:08x}"


def add(second, operation, user_id=None, session_id=None, entry_ids=(), metadata=None, status="SUCCESS", **more):
    """Add a line, *second* seconds after 10:30."""
    time = (BEGIN + dt.timedelta(seconds=second)).isoformat(timespec="microseconds")[:26] + "Z"
    part_of = more.pop("part_of", None)
    members = {
        "event_id": event_id(len(LINES)),
        "timestamp": time,
        "part_of": part_of,
        "operation": operation,
        "user_id": user_id,
        "session_id": session_id,
        "entry_ids": list(entry_ids),
        "metadata": metadata or {},
        "status": status,
        "error_message": more.pop("error_message", None),
        "duration_ms": more.pop("duration_ms", None),
        "kind": more.pop("kind", None),
    }
    assert not more
    if members["duration_ms"] is not None:
        members["duration_ms"] = float(members["duration_ms"])
    if part_of is not None:
        del members["status"]
    LINES.append({name: value for name, value in members.items() if value not in (None, [], {})})


API = {"source": "api", "user": {"plan": "pro", "seats": 5}, "tags": ["verified", "eu"]}
FREE = {"source": "api", "user": {"plan": "free"}, "tags": ["eu"]}
BATCH = {"source": "batch", "attempt": 1, "nested": [{"step": 1, "ok": True}, {"step": 2, "ok": False}]}
HOSTILE = "'; DROP TABLE events; --"
ZOE = "zoë-王"


def add_trail():
    """Add the lines of the trail."""
    add(0, "trail.open", metadata={"file": "audit.jsonl"}, kind="trail")
    add(1.5, "STORE", "ann", "s1", ["e1"], API, duration_ms=45.2)
    add(2, "STORE", "ann", "s1", ["e2", "e3"], API, duration_ms=12)
    add(3, "RECALL", "ann", "s1", ["e1"], FREE, duration_ms=3.5)
    add(3, "RECALL", "bob", "s2", ["e1", "e2"], FREE, duration_ms=4.5)
    add(4.000001, "delete", "bob", "s2", ["e2"], {"reason": "asked", "forced": True}, "FAILURE",
        error_message="PermissionError: not yours", duration_ms=0.25)  # fmt: skip
    add(5, "FORGET", "bob", "s2", ["e2"], {"reason": "asked", "forced": False}, duration_ms=8)
    add(6, "login", ZOE, "s3", metadata={"ip": "2001:db8::1", "naïve": "grüße"})
    add(7, "STORE", ZOE, "s3", ["e4"], {"text": 'a\u2028b\u202ec\x7f\n\t"\\', "size": 2**53 + 1}, duration_ms=120)
    add(8, "STORE", HOSTILE, "s4", ["<script>alert(1)</script>", "=1+1"], {"source": HOSTILE}, duration_ms=7)
    add(9, "RECALL", "", "s4", ["e4"], duration_ms=0)
    add(10, "COMPACT", None, None, [f"e{n}" for n in range(10, 20)], BATCH, "PARTIAL", duration_ms=2500.75)
    add(10, "COMPACT", None, None, ["e20"], {**BATCH, "attempt": 2}, duration_ms=1800)
    add(11, "EXPORT", "carol", "s5", metadata={"format": "csv", "rows": 0}, duration_ms=950.5)
    add(12, "FORGET", "ann", "s1", ["e1"], {"intent": True}, kind="intent")
    add(12.5, "FORGET", "ann", "s1", ["e1"], {"reason": "gdpr"}, duration_ms=15)
    add(13, "gap", metadata={"lost": 7, "reason": "the target failed"}, status="FAILURE", kind="gap")
    add(14, "IMPORT", "carol", "s5", ["e30", "e31"], {"_audit": {"entry_ids": "continued in 2 parts"}},
        duration_ms=9999.5)  # fmt: skip
    first = LINES[-1]["event_id"]
    add(14, "IMPORT", entry_ids=["e32", "e33"], part_of=first, kind="part")
    add(14, "IMPORT", entry_ids=["e34"], part_of=first, kind="part")
    # The clock steps back by nine seconds.
    add(5, "STORE", "ann", "s6", ["e5"], API, duration_ms=11)
    add(5.5, "STORE", "bob", "s2", ["e6"], {"source": "api", "tags": []}, "FAILURE", error_message="OSError: disk")
    add(6, "RECALL", "bob", "s2", ["e6"], {"source": "api", "tags": None})
    add(7, "audit.verify", None, "s7", metadata={"depth": {"a": {"b": {"c": [1, [2, 3]]}}}}, duration_ms=33)
    users = ["ann", "bob", "carol", "dave", None]
    for number in range(30):
        status = "FAILURE" if number % 10 == 4 else "PARTIAL" if number % 10 == 9 else "SUCCESS"
        error = {"error_message": f"TimeoutError: {number}"} if status == "FAILURE" else {}
        add(20 + number, SIX[number % 6], users[number % 5], f"b{number // 10}", [f"n{number}", f"g{number % 3}"],
            {"number": number, "even": number % 2 == 0}, status, duration_ms=(number + 1) * 1.5, **error)  # fmt: skip
    add(55, "STORE", "ann", "s1", ["e1", "e1"], API, duration_ms=45.2)
    add(56, "ünïcode.wörk", "dave", "s8", metadata={"ratio": 0.5, "count": 10, "ok": True, "none": None})
    add(57, "gap", metadata={"lost": 1, "reason": "the target failed"}, status="FAILURE", kind="gap")
    add(58, "Delete", "dave", "s8", ["e2"], status="PARTIAL", error_message="half of it", duration_ms=500)
    add(59.999999, "RECALL", "ann", "s1", ["e2"], duration_ms=1)
    add(60, "trail.close", kind="trail")


def text(line):
    """Return the line as text, as a trail has it."""
    plain = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
    return DANGEROUS.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def events():
    """Return the events of the lines, with their parts joined."""
    found = []
    for line in LINES:
        if "part_of" in line:
            found[-1] = {**found[-1], "entry_ids": found[-1]["entry_ids"] + line["entry_ids"]}
        else:
            found.append(line)
    return found


def contains(value, wanted):
    """Return whether *value* contains *wanted*, below the top level."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(name in value and contains(value[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(one, item) for one in value) for item in wanted)
    numbers = type(value) in (int, float) and type(wanted) in (int, float)
    return (numbers or type(value) is type(wanted)) and value == wanted


def as_list(value):
    """Return *value* as a list."""
    return value if isinstance(value, list) else [value]


def matches(event, filters):
    """Return whether *event* matches all *filters*. Times are texts of fixed width, which compare as times do."""
    for name in ("event_id", "user_id", "session_id", "status"):
        if name in filters and event.get(name) not in as_list(filters[name]):
            return False
    if event.get("kind") not in as_list(filters.get("kind")):
        return False
    if "operation_class" in filters:
        wanted = [name or "unclassified" for name in as_list(filters["operation_class"])]
        if CLASSES.get(event["operation"], "unclassified") not in wanted:
            return False
    if "operation" in filters:
        wanted = [name.upper() if name.upper() in SIX else name for name in as_list(filters["operation"])]
        if event["operation"] not in wanted:
            return False
    if "entry_ids" in filters and not set(as_list(filters["entry_ids"])) & set(event.get("entry_ids", [])):
        return False
    if not contains(event.get("metadata", {}), filters.get("metadata", {})):
        return False
    if not filters.get("start_time", "0") <= event["timestamp"] < filters.get("end_time", "9"):
        return False
    if "min_duration_ms" in filters or "max_duration_ms" in filters:
        low, high = filters.get("min_duration_ms", -1e99), filters.get("max_duration_ms", 1e99)
        return "duration_ms" in event and low <= event["duration_ms"] <= high
    return True


def at(second):
    """Return the time *second* seconds after 10:30."""
    return (BEGIN + dt.timedelta(seconds=second)).isoformat(timespec="microseconds")[:26] + "Z"


QUERIES = [
    ({}, {"limit": 5}),
    ({}, {"newest_first": False, "limit": 3, "offset": 2}),
    ({}, {"offset": 49}),
    ({}, {"limit": 0}),
    ({}, {"offset": 1_000}),
    ({"user_id": "ann"}, {}),
    ({"user_id": "ann", "operation": "STORE"}, {"newest_first": False}),
    ({"user_id": "ann", "operation": "STORE"}, {"limit": 1, "offset": 1}),
    ({"user_id": ["ann", "carol"], "status": "FAILURE"}, {}),
    ({"user_id": None, "operation": "COMPACT"}, {}),
    ({"user_id": [None, "dave"], "status": ["PARTIAL", "FAILURE"]}, {}),
    ({"user_id": ""}, {}),
    ({"user_id": []}, {}),
    ({"user_id": "nobody"}, {}),
    ({"user_id": ZOE}, {}),
    ({"user_id": HOSTILE}, {}),
    ({"user_id": "ANN"}, {}),
    ({"session_id": "s2"}, {}),
    ({"session_id": None}, {}),
    ({"operation": "delete"}, {}),
    ({"operation": ["delete", "Delete"]}, {}),
    ({"operation": "forget"}, {}),
    ({"operation": "ünïcode.wörk"}, {}),
    ({"operation": "DELETE"}, {}),
    ({"operation_class": "delete"}, {}),
    ({"operation_class": ["login", "export"], "status": "SUCCESS"}, {"newest_first": False}),
    ({"operation_class": "delete", "operation": ["FORGET", "STORE"], "user_id": ["ann", "bob"]}, {}),
    ({"operation_class": None}, {}),
    ({"operation_class": ["unclassified", "other"], "kind": ALL_KINDS}, {}),
    ({"operation_class": []}, {}),
    ({"status": "PARTIAL"}, {}),
    ({"status": "FAILURE", "start_time": at(5), "end_time": at(25)}, {"newest_first": False}),
    ({"kind": "gap"}, {}),
    ({"kind": ["trail", "intent"]}, {"newest_first": False}),
    ({"kind": "checkpoint"}, {}),
    ({"kind": "part"}, {}),
    ({"kind": [None, "intent"], "user_id": "ann", "operation": "FORGET"}, {}),
    ({"kind": ALL_KINDS, "start_time": at(55)}, {}),
    ({"entry_ids": "e1"}, {}),
    ({"entry_ids": ["e34", "e20"]}, {}),
    ({"entry_ids": "=1+1"}, {}),
    ({"entry_ids": "e"}, {}),
    ({"entry_ids": "g1", "user_id": "bob"}, {}),
    ({"metadata": {"source": "api"}}, {"newest_first": False}),
    ({"metadata": {"user": {"plan": "pro"}}}, {}),
    ({"metadata": {"user": {"plan": "pro", "seats": 5.0}, "tags": ["eu"]}}, {}),
    ({"metadata": {"tags": []}}, {}),
    ({"metadata": {"tags": "eu"}}, {}),
    ({"metadata": {"tags": None}}, {}),
    ({"metadata": {"nested": [{"step": 2}], "attempt": 2}}, {}),
    ({"metadata": {"nested": [{"step": 1, "ok": False}]}}, {}),
    ({"metadata": {"forced": True}}, {}),
    ({"metadata": {"forced": 1}}, {}),
    ({"metadata": {"attempt": True}}, {}),
    ({"metadata": {"depth": {"a": {"b": {"c": [[3]]}}}}}, {}),
    ({"metadata": {"depth": {"a": {"b": {"c": [3]}}}}}, {}),
    ({"metadata": {"size": 2**53 + 1}}, {}),
    ({"metadata": {"size": 2**53}}, {}),
    ({"metadata": {"naïve": "grüße"}}, {}),
    ({"metadata": {"text": "a\u2028b\u202ec\x7f\n\t\"\\"}}, {}),
    ({"start_time": at(5), "end_time": at(6)}, {}),
    ({"start_time": at(4.000001), "end_time": at(4.000002)}, {}),
    ({"end_time": at(1.5)}, {}),
    ({"start_time": at(59.999999)}, {}),
    ({"start_time": at(60)}, {}),
    ({"start_time": at(7), "end_time": at(7)}, {}),
    ({"min_duration_ms": 500}, {}),
    ({"max_duration_ms": 1}, {}),
    ({"min_duration_ms": 11, "max_duration_ms": 12}, {}),
    ({"min_duration_ms": 11, "max_duration_ms": 12, "user_id": "ann", "metadata": {"source": "api"}}, {}),
]  # fmt: skip

COUNTS = [{}, {"kind": ALL_KINDS}, {"user_id": "bob"}, {"entry_ids": ["g0", "g1"]}, {"status": "SUCCESS"},
          {"operation_class": "delete"}]  # fmt: skip
STATISTICS = [{}, {"user_id": "bob"}, {"user_id": None}, {"operation": "STORE"}, {"user_id": "nobody"},
              {"operation_class": ["delete", None]}, {"start_time": at(20), "end_time": at(50)}, {"kind": "gap"}]  # fmt: skip
USERS = ["ann", "bob", ZOE, None, "nobody"]
ERRORS = [
    ({"user": "ann"}, {}, "TypeError"),
    ({"operation": None}, {}, "TypeError"),
    ({"entry_ids": None}, {}, "TypeError"),
    ({"metadata": "api"}, {}, "TypeError"),
    ({"operation_class": 1.5}, {}, "TypeError"),
    ({"operation_class": "deletion"}, {}, "ValueError"),
    ({"status": "DONE"}, {}, "ValueError"),
    ({"kind": "note"}, {}, "ValueError"),
    ({"start_time": at(2), "end_time": at(1)}, {}, "ValueError"),
    ({"min_duration_ms": 2, "max_duration_ms": 1}, {}, "ValueError"),
    ({}, {"limit": -1}, "ValueError"),
    ({}, {"offset": "1"}, "TypeError"),
]


def select(filters, newest_first=True, limit=None, offset=0):
    """Return the events that match, in the order of the query."""
    found = [event for event in events() if matches(event, filters)]
    found = found[::-1] if newest_first else found
    return found[offset:] if limit is None else found[offset : offset + limit]


def percentile(durations, percent):
    """Return the exact percentile (nearest rank)."""
    return sorted(durations)[max(1, -(-percent * len(durations) // 100)) - 1] if durations else 0.0


def counts_by(found, name, start=()):
    """Return the number of events by a member, including zeros for *start*."""
    return {**dict.fromkeys(start, 0), **Counter(event[name] for event in found if name in event)}


def statistics(found):
    """Return the statistics of the selected events."""
    durations = [event["duration_ms"] for event in found if "duration_ms" in event]
    good = sum(event["status"] == "SUCCESS" for event in found)
    return {
        "total_events": len(found),
        "success_rate": good / len(found) if found else 1.0,
        "avg_duration_ms": sum(durations) / len(durations) if durations else 0.0,
        **{f"p{percent}_duration_ms": percentile(durations, percent) for percent in (50, 95, 99)},
        "by_operation": counts_by(found, "operation", SIX),
        "by_status": counts_by(found, "status", ["SUCCESS", "FAILURE", "PARTIAL"]),
        "by_user": counts_by(found, "user_id"),
        "without_user": sum("user_id" not in event for event in found),
        "first_event": found[0]["timestamp"] if found else None,
        "last_event": found[-1]["timestamp"] if found else None,
        "complete_since": None,
    }


def user_statistics(found):
    """Return the statistics of one user's events."""
    operations = counts_by(found, "operation")
    # Among equals, the first one counts.
    most = max(operations, key=lambda name: operations[name]) if operations else None
    return {
        "total_operations": len(found),
        "last_activity": found[-1]["timestamp"] if found else None,
        "most_common_operation": most,
        "success_rate": sum(event["status"] == "SUCCESS" for event in found) / len(found) if found else 1.0,
        "by_operation": operations,
    }


def questions():
    """Return every question with its answer."""
    found = [
        {"method": "query_events", "filters": filters, "how": how,
         "answer": [event["event_id"] for event in select(filters, **how)]}
        for filters, how in QUERIES
    ]  # fmt: skip
    found += [{"method": "count_events", "filters": filters, "answer": len(select(filters))} for filters in COUNTS]
    found += [
        {"method": "get_statistics", "filters": filters, "answer": statistics(select(filters, newest_first=False))}
        for filters in STATISTICS
    ]
    found += [
        {"method": "get_user_statistics", "user_id": user,
         "answer": user_statistics(select({"user_id": user}, newest_first=False))}
        for user in USERS
    ]  # fmt: skip
    for event_id_, answer in [
        (LINES[1]["event_id"], LINES[1]),
        (LINES[16]["event_id"], LINES[16]),
        (LINES[17]["event_id"], next(event for event in events() if event["event_id"] == LINES[17]["event_id"])),
        # A part is not an event.
        (LINES[18]["event_id"], None),
        ("evt_none", None),
    ]:
        found.append({"method": "get_event", "event_id": event_id_, "answer": answer})
    found += [{"method": "query_events", "filters": f, "how": how, "error": error} for f, how, error in ERRORS]
    return found


def file_texts():
    """Return the texts of both files."""
    LINES.clear()
    add_trail()
    trail = "".join(f"{text(line)}\n" for line in LINES)
    lines = ",\n".join(json.dumps(question, ensure_ascii=True) for question in questions())
    return trail, f"[\n{lines}\n]\n"


if __name__ == "__main__":
    for name, content in zip(("trail.jsonl", "questions.json"), file_texts(), strict=True):
        (HERE / name).write_text(content, encoding="utf-8", newline="\n")
