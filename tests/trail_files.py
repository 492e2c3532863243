"""Lines and files of trails, made by hand."""

import datetime as dt
import gzip
import json

from zstandard_of_python import zstd

BEGIN = dt.datetime(2025, 1, 15, 10, 30, tzinfo=dt.UTC)


def zstd_of(data):
    """Return data packed as by the command ``zstd``, which adds a checksum."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACKS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd_of}


def at(second):
    """Return the time *second* seconds after 10:30."""
    return BEGIN + dt.timedelta(seconds=second)


def line_of(number, second=None, *, part_of=None, **members):
    """Return the line of an event, in the form in which the library writes it."""
    timestamp = at(number if second is None else second)
    line = {
        "event_id": f"evt_{int(timestamp.timestamp() * 1000):012x}7001{0x80000001:08x}{number:08x}",
        "timestamp": timestamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if part_of is not None:
        line["part_of"] = json.loads(part_of)["event_id"]
        members = {"kind": "part", **members}
    line["operation"] = "STORE"
    order = [
        "operation",
        "user_id",
        "session_id",
        "entry_ids",
        "metadata",
        "status",
        "error_message",
        "duration_ms",
        "kind",
    ]
    if part_of is None:
        members.setdefault("status", "SUCCESS")
    line |= {name: members[name] for name in order if name in members}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def id_of(line):
    """Return the id of the event in a line."""
    return json.loads(line)["event_id"]


def retention_event(number, *seconds):
    """Return the line of the event that names the segments, by the seconds of their rollovers, that retention deletes."""
    names = [rolled_name("audit.jsonl", second) for second in seconds]
    line = line_of(number, kind="trail", metadata={"segments": names, "bytes": 5})
    return line.replace(b'"STORE"', b'"retention"')


def rolled_name(base, second):
    """Return the name of the segment that was rolled over at *second*."""
    return f"{base}.{at(second).strftime('%Y%m%dT%H%M%S.%fZ')}"


def write_trail(folder, *segments, active=b"", packs=None, base="audit.jsonl"):
    """Write a trail; return the path of its active segment. Each of *segments* is the second of its rollover and its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (second, data) in enumerate(segments):
        pack = PACKS[packs[number]] if packs else bytes
        (folder / rolled_name(base, second)).write_bytes(pack(data))
    path = folder / base
    if active is not None:
        path.write_bytes(active)
    return path


def append(path, *data):
    """Append *data* to the file at *path*."""
    with path.open("ab") as file:
        file.write(b"".join(data))


def roll_over(path, second):
    """Roll the trail at *path* over."""
    path.rename(path.with_name(rolled_name(path.name, second)))
    path.write_bytes(b"")


def pack_segments(path, pack):
    """Pack all rolled segments of the trail at *path*, as a cron job would."""
    for segment in sorted(path.parent.iterdir()):
        if segment.name.endswith("Z"):
            temporary = segment.with_name(segment.name + ".x")
            temporary.write_bytes(PACKS[pack](segment.read_bytes()))
            temporary.rename(segment.with_name(segment.name + ".gz"))
            segment.unlink()


def ids(events):
    """Return the ids of events."""
    return [event.event_id for event in events]
