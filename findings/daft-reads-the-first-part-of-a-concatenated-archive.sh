#!/usr/bin/env bash
# daft reads only the first part of zstd, xz and bzip2 files that were joined with cat, without an error. It reads all of gzip.
#
# A reader would expect: all lines; the formats allow it (RFC 8878: a file is one or more frames), the commands zstd, xz and
#   bzip2 unpack all parts, and so do the other engines for those of these formats that they know.
# Guessed before running: all lines, or for zstd the first part in one of the engines.
# Seen on 2026-11-29, Python 3.11.7, daft 0.7.26, duckdb 2.0.1, polars 2.1.0, pyarrow 25.0.1, zstandard 0.25.0: of three rolled
#   segments with 1,000 events each, joined after compression, daft has 3,000 events for gzip and 1,000 for zstd, xz and bzip2.
#   DuckDB and Polars have 3,000 for gzip and zstd, pyarrow for gzip, zstd and bzip2; the rest are errors.
# What follows: the segments of a day are often joined with "cat *.zst > day.zst"; a query by daft then sees the first hours
#   only, and nothing tells. Read the segments themselves, or compress after joining.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  daft==0.7.26 duckdb==2.0.1 polars==2.1.0 pyarrow==25.0.1 zstandard==0.25.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import bz2
import gzip
import json
import lzma
import sys
from importlib.metadata import version

import daft
import duckdb
import polars
import pyarrow.json
import zstandard

names = ("daft", "duckdb", "polars", "pyarrow", "zstandard")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
segments = ["".join(json.dumps({"id": 1000 * n + i}) + "\n" for i in range(1000)).encode() for n in range(3)]
compress = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress, "xz": lzma.compress, "bz2": bz2.compress}
readers = {
    "daft": lambda path: len(daft.read_json(path).to_pydict()["id"]),
    "duckdb": lambda path: duckdb.connect().execute(f"SELECT count(*) FROM '{path}'").fetchone()[0],
    "polars": lambda path: polars.read_ndjson(path).height,
    "pyarrow": lambda path: pyarrow.json.read_json(path).num_rows,
}
seen = {}
for suffix, pack in compress.items():
    path = f"day.jsonl.{suffix}"
    with open(path, "wb") as file:
        file.writelines(pack(segment) for segment in segments)
    for name, read in readers.items():
        try:
            seen[suffix, name] = read(path)
        except Exception as error:
            seen[suffix, name] = "error"
            print("  ", str(error).splitlines()[0][:100])
        print(f"{path}, three parts of 1000 events: {name} {seen[suffix, name]}")

expected = {
    **{("gz", name): 3000 for name in readers},
    **{("zst", name): 3000 for name in readers},
    **{(suffix, name): "error" for suffix in ("xz", "bz2") for name in readers},
    **{(suffix, "daft"): 1000 for suffix in ("zst", "xz", "bz2")},
    ("bz2", "pyarrow"): 3000,
}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
