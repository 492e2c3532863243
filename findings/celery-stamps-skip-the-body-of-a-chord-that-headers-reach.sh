#!/usr/bin/env bash
# Celery's stamps do not reach the body of a chord, and its message headers reach nothing but that and retries. A task that
#   replaces another one has neither.
#
# A reader would expect: stamp(user=…) of a whole canvas marks each of its tasks, and headers are for one message.
# Guessed before running: headers stay on a retry, and for the later tasks of a chain, links, the body of a chord and replace().
# Seen on 2026-11-29, Python 3.11.7, celery 5.7.0, a worker in this process: with apply_async(headers={"user": "ann"}), a retry,
#   a group and the body of a chord have the user; the second task of a chain, a link, an error callback and a replacement do not.
#   With stamp(user="ann") it is the other way round: chain, link and error callback have it, and the body of a chord does not. A
#   replacement has neither. No error or warning.
# What follows: an audit event of the last step of a chord, which often is the one that publishes or pays, names no user if
#   stamps carry it; one of an error callback names none if headers do. Set the header in a handler of before_task_publish.
# The reason: stamp() of a chord passes by the body unless a visitor is given (celery/canvas.py), and replace() copies neither.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check celery==5.7.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
import time
from importlib.metadata import version

from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker

print("Python", sys.version.split()[0], "celery", version("celery"))
app = Celery("audit", broker="memory://", backend="cache+memory://")
seen = {}


def record(task, name):
    """Keep the user that the headers of the message and its stamps name."""
    seen[name] = getattr(task.request, "user", None), (task.request.stamps or {}).get("user")


@app.task(bind=True)
def step(self, name):
    record(self, name)


@app.task(bind=True)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    record(self, "retried")


@app.task(bind=True)
def fail(self):
    raise ValueError("wanted")


@app.task(bind=True)
def on_error(self, *_):
    record(self, "error callback")


@app.task(bind=True)
def replaced(self):
    raise self.replace(step.si("replacement"))


def canvases():
    linked = step.si("first")
    linked.link(step.si("link"))
    failing = fail.si()
    failing.link_error(on_error.s())
    return [
        flaky.si(),
        chain(step.si("first of a chain"), step.si("second of a chain")),
        linked,
        failing,
        group(step.si("group"), step.si("group, too")),
        chord([step.si("chord"), step.si("chord, too")], step.si("body of a chord")),
        replaced.si(),
    ]


def run(send, count=12):
    seen.clear()
    for canvas in canvases():
        send(canvas)
    deadline = time.monotonic() + 60
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return dict(seen)


with start_worker(app, perform_ping_check=False, pool="solo", loglevel="CRITICAL"):
    by_header = run(lambda canvas: canvas.apply_async(headers={"user": "ann"}))
    by_stamp = run(lambda canvas: (canvas.stamp(user="ann"), canvas.apply_async()))

with_header = {name for name, (header, _) in by_header.items() if header == "ann"}
with_stamp = {name for name, (_, stamp) in by_stamp.items() if stamp == "ann"}
for name in sorted(by_stamp):
    print(f"{name}: header {'yes' if name in with_header else 'LOST'}, stamp {'yes' if name in with_stamp else 'LOST'}")
names = set(by_header)
same = (
    names == set(by_stamp)
    and len(names) == 12
    and names - with_header == {"second of a chain", "link", "error callback", "replacement"}
    and names - with_stamp == {"body of a chord", "replacement"}
)
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
