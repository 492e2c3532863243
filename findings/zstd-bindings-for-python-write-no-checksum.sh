#!/usr/bin/env bash
# The zstd bindings for Python write frames without a content checksum, unlike the zstd command and unlike gzip.
#
# A reader would expect: the same protection as by gzip and by the zstd command.
# Guessed before running: about 60 % of the changed bits go unnoticed with the bindings.
# Seen on 2026-11-28, Python 3.11.7, backports.zstd 1.8.0, zstandard 0.25.0: no frame has a checksum by default. Of 1,061 copies of
#   a compressed log in which one bit was changed, 504 (48 %) decompress without an error, into a different log. gzip reports
#   every change of the content. (The zstd command 1.5 reported all as well; it is not run here.)
# What follows: a segment that was compressed by a Python script can change on disk, and its reader sees valid lines with other
#   values. Set the flag (CompressionParameter.checksum_flag, write_checksum=True), or use the zstd command.
# Known upstream: https://github.com/python/cpython/issues/139975
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check backports.zstd==1.8.0 zstandard==0.25.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import gzip
import json
import sys
from importlib.metadata import version

import zstandard
from backports import zstd

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("backports.zstd", "zstandard")))
log = b"".join(
    json.dumps({"event_id": f"evt_{n:032x}", "operation": "document.delete", "user_id": f"user_{n % 7}"}).encode() + b"\n"
    for n in range(500)
)


def changed_unnoticed(packed, unpack):
    """Return how many copies with one changed bit are unpacked without an error into something else."""
    count = 0
    for place in range(len(packed)):
        copy = bytearray(packed)
        copy[place] ^= 1
        try:
            count += unpack(bytes(copy)) != log
        except Exception:
            continue
    return count


checked = {zstd.CompressionParameter.checksum_flag: 1}
frames = {
    "backports.zstd, default": zstd.compress(log),
    "zstandard, default": zstandard.ZstdCompressor().compress(log),
    "backports.zstd, checksum_flag": zstd.compress(log, options=checked),
    "zstandard, write_checksum": zstandard.ZstdCompressor(write_checksum=True).compress(log),
}
seen = {}
for name, packed in frames.items():
    has_checksum = zstandard.get_frame_parameters(packed).has_checksum
    seen[name] = has_checksum, changed_unnoticed(packed, zstd.decompress) > 0
    print(f"{name}: {'a' if has_checksum else 'no'} checksum, {len(packed)} bytes,",
          changed_unnoticed(packed, zstd.decompress), "changes unnoticed")
packed = gzip.compress(log)
seen["gzip"] = True, changed_unnoticed(packed, gzip.decompress) > 0
print(f"gzip: a checksum, {len(packed)} bytes,", changed_unnoticed(packed, gzip.decompress), "changes unnoticed")

expected = {name: (False, True) if "default" in name else (True, False) for name in seen}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
