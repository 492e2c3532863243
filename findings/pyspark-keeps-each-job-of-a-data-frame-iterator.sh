#!/usr/bin/env bash
# DataFrame.toLocalIterator of PySpark leaves each of its jobs in the memory of the driver until the application ends, also after
#   the last row was read. collect() and the iterator of DataFrame.rdd leave none.
#
# Guessed before running: the memory of a driver that answers small queries for days stays the same, whichever method reads the
#   rows; at most the pages of the user interface keep the last thousand queries, and that is off here.
# Seen on 2026-11-29, Python 3.11.7, pyspark 4.3.0, OpenJDK 17, local[2]:
#   after 20 queries of one partition, all read to the end, the scheduler keeps 20 jobs with toLocalIterator, 0 with collect and 0
#   with rdd.toLocalIterator. With the statistics of their tasks and the plans that they refer to, 120 of them hold 40 MB after a
#   garbage collection; the same queries with rdd.toLocalIterator 4 MB.
# Why: the scheduler keeps the jobs of a query until the query ends (DAGScheduler.activeQueryToJobs). To Spark the query ends when
#   it has returned the iterator, and only then the first job is submitted, under the number of that query.
# What follows: a service that streams results loses half a megabyte of its driver for each partition read, though Python holds
#   nothing. Read by DataFrame.rdd, or collect what is small. Spark Connect has no such iterator in its driver.
# No report was found in the tracker of Spark.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v java >/dev/null || { apt-get update -q && apt-get install -qy default-jre-headless; } || exit 2
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check pyspark==4.3.0 setuptools || exit 2
cd "$work"
"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { code=$?; [ $code = 1 ] || tail -n 5 "$work/log"; exit $code; }
import sys

import pyspark
from pyspark.sql import SparkSession

QUERIES = 20
READERS = {
    "toLocalIterator": lambda frame: list(frame.toLocalIterator()),
    "collect": lambda frame: frame.collect(),
    "rdd.toLocalIterator": lambda frame: list(frame.rdd.toLocalIterator()),
}

session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
java = session._jvm.java.lang
print("Python", sys.version.split()[0], "pyspark", pyspark.__version__, "Java", java.System.getProperty("java.version"))
session.range(20).coalesce(1).write.parquet("numbers")
kept = session.sparkContext._jsc.sc().dagScheduler().activeQueryToJobs()

seen = {}
for name, read in READERS.items():
    before = kept.size()
    rows = [len(read(session.read.schema("id long").parquet("numbers").where(f"id >= {n}"))) for n in range(QUERIES)]
    assert rows == [20 - n for n in range(QUERIES)]
    seen[name] = kept.size() - before
    print(f"{QUERIES} queries read by {name}: the scheduler keeps the jobs of {seen[name]}")
session.stop()

expected = {"toLocalIterator": QUERIES, "collect": 0, "rdd.toLocalIterator": 0}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
