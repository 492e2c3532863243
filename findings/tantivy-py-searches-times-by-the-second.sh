#!/usr/bin/env bash
# tantivy (the search engine) compares times by the second: a search from 10:30:45.5 on misses the events of the rest of that
#   second, and one up to 10:30:46.2 finds those up to …46.999.
#
# A reader would expect: times as exact as the stored ones, which keep their microseconds; add_date_field() has no option.
# Guessed before running: exact to the microsecond.
# Seen on 2026-11-29, Python 3.11.7, tantivy 0.27.0: of 20 events, 100 ms apart, the range from …45.5 to …46.2 finds …46.0 to
#   …46.9, both as text of a query and by range_query(); with fast=True or without. The equality with …45.5 finds the ten events
#   of that second. order_by_field= takes the events of one second in any order. The same times as integers of milliseconds
#   are right.
# What follows: a page that goes on "after the time of the last event" skips events, and one of the latest events is not
#   sorted. Index the time as an integer.
# Known in part: https://github.com/quickwit-oss/tantivy/issues/2466
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check tantivy==0.27.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import datetime
import sys
from importlib.metadata import version

import tantivy

print("Python", sys.version.split()[0], "tantivy", version("tantivy"))
START = datetime.datetime(2025, 1, 15, 10, 30, 45, tzinfo=datetime.timezone.utc)
TIMES = [START + datetime.timedelta(milliseconds=100 * number) for number in range(20)]
FROM, TO = "2025-01-15T10:30:45.5Z", "2025-01-15T10:30:46.2Z"


def milliseconds(time):
    return int(time.timestamp() * 1000)


def search(fast):
    """Index the times, and return what is found, and the times in the order of the index."""
    builder = tantivy.SchemaBuilder()
    builder.add_date_field("time", stored=True, indexed=True, fast=fast)
    builder.add_integer_field("ms", stored=True, indexed=True, fast=True)
    schema = builder.build()
    index = tantivy.Index(schema)
    writer = index.writer(num_threads=1)
    for time in TIMES:
        document = tantivy.Document()
        document.add_date("time", time)
        document.add_integer("ms", milliseconds(time))
        writer.add_document(document)
    writer.commit()
    index.reload()
    searcher = index.searcher()

    def found(query, **options):
        hits = searcher.search(query, limit=100, **options).hits
        return [TIMES.index(searcher.doc(address)["time"][0]) for _, address in hits]

    queries = {
        "text": index.parse_query(f"time:[{FROM} TO {TO}]"),
        "range_query": tantivy.Query.range_query(schema, "time", tantivy.FieldType.Date, TIMES[5], TIMES[12]),
        "equal": index.parse_query(f'time:"{FROM}"'),
        "integer": index.parse_query(f"ms:[{milliseconds(TIMES[5])} TO {milliseconds(TIMES[12])}]"),
    }
    results = {name: sorted(found(query)) for name, query in queries.items()}
    if fast:
        order = {field: found(tantivy.Query.all_query(), order_by_field=field) for field in ("time", "ms")}
        results |= {f"sorted by {field}": numbers == list(range(19, -1, -1)) for field, numbers in order.items()}
        print("sorted by time:", order["time"])
    return results


seen = {fast: search(fast) for fast in (True, False)}
for fast, results in seen.items():
    for name, numbers in results.items():
        print(f"fast={fast}, {name}: {numbers}")

right, by_second = list(range(5, 13)), list(range(10, 20))
ranges = {"text": by_second, "range_query": by_second, "equal": list(range(10)), "integer": right}
expected = {True: {**ranges, "sorted by time": False, "sorted by ms": True}, False: ranges}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
