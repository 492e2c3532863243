#!/usr/bin/env bash
# dictdiffer's revert() puts three or more items that were removed from a list back in another order. The difference itself is
#   right.
#
# A reader would expect: the document as it was: the documentation shows revert() as the inverse of patch().
# Guessed before running: patch() and revert() are exact, as with jsonpatch and deepdiff.
# Seen on 2026-11-29, Python 3.11.7, dictdiffer 0.10.0, jsonpatch 1.48, deepdiff 9.1.0: of a list of three approvers that was
#   emptied, revert() makes ann, eve, bob; of five of whom ann stayed, it makes ann, bob, kim, eve, joe. Up to two removed items
#   are right, and patch() always is. jsonpatch and deepdiff give the same lists in order. Nothing is reported, and the result has
#   all items.
# What follows: a history that keeps differences and goes back from the present state shows an order of approvers, steps or
#   positions that never was, and a hash of that state differs. Sort the removed items by index before you revert, or keep states.
# The reason: the removed items are listed from the last to the first, and swap() does not turn them round. Known upstream:
#   https://github.com/inveniosoftware/dictdiffer/issues/178 and pull request #197
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check dictdiffer==0.10.0 jsonpatch==1.48 deepdiff==9.1.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import dictdiffer
import jsonpatch
from deepdiff import DeepDiff, Delta

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("dictdiffer", "jsonpatch", "deepdiff")))


def by_dictdiffer(old, new):
    return dictdiffer.revert(list(dictdiffer.diff(old, new)), new)


def by_jsonpatch(old, new):
    return jsonpatch.make_patch(new, old).apply(new)


def by_deepdiff(old, new):
    return new - Delta(DeepDiff(old, new), bidirectional=True)


PEOPLE = ["ann", "bob", "eve", "joe", "kim"]
CASES = [(2, 0), (3, 0), (3, 1), (5, 1), (5, 0)]
seen = {}
for count, stay in CASES:
    old = {"approvers": PEOPLE[:count]}
    new = {"approvers": PEOPLE[:stay]}
    for revert in (by_dictdiffer, by_jsonpatch, by_deepdiff):
        reverted = revert(old, {"approvers": list(new["approvers"])})["approvers"]
        if reverted != old["approvers"]:
            seen[revert.__name__, count, stay] = reverted
            print(f"{revert.__name__}: {old['approvers']} became {new['approvers']}, and was reverted to {reverted}")
    patched = dictdiffer.patch(list(dictdiffer.diff(old, new)), {"approvers": list(old["approvers"])})
    assert patched == new

expected = {
    ("by_dictdiffer", 3, 0): ["ann", "eve", "bob"],
    ("by_dictdiffer", 5, 1): ["ann", "bob", "kim", "eve", "joe"],
    ("by_dictdiffer", 5, 0): ["ann", "kim", "bob", "joe", "eve"],
}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
