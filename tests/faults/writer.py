"""A program that records events on an `AuditHandler`, and prints ``ack NUMBER ID`` for each and its counters at the end.

``python writer.py PATH [--count N] [--first N] [--processes N] [--method fork|spawn|forkserver] [--threads N]
[--max-bytes N] [--on-error retry|raise] [--max-pending N] [--pad N] [--durability D]``
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import threading

from structlog_audit import AuditFileHandler, AuditHandler, AuditWriteError, get_audit_logger


def print_line(text):
    """Print a line with a single unbuffered write."""
    os.write(1, f"{text}\n".encode())


def configure(options):
    durability = {"durability": options.durability} if options.durability else {}
    target = AuditFileHandler(options.path, maxBytes=options.max_bytes, **durability)
    handler = AuditHandler(target=target, on_error=options.on_error, max_pending=options.max_pending)
    logger = logging.getLogger("audit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler


def record(options, first, count):
    log = get_audit_logger()
    for number in range(first, first + count):
        pad = "x" * (number * 7919 % (options.pad + 1))
        try:
            entry = log._record(logging.INFO, "STORE", {"entry_ids": [str(number)], "pad": pad})
        except AuditWriteError:
            print_line(f"raised {number}")
        else:
            if entry.state == "recorded":
                print_line(f"ack {number} {entry.line[13:49].decode()}")


def work(options, handler, first):
    handler = handler or configure(options)
    share = options.count // options.threads
    threads = [
        threading.Thread(target=record, args=(options, first + number * share, share))
        for number in range(options.threads - 1)
    ]
    for thread in threads:
        thread.start()
    record(options, first + (options.threads - 1) * share, share)
    for thread in threads:
        thread.join()
    handler.close()
    counters = handler._counters()
    print_line("counters " + json.dumps({**counters, "failed_rollovers": handler.target.failed_rollovers}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--method", default="fork")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-bytes", type=int, default=50_000_000)
    parser.add_argument("--on-error", default="retry")
    parser.add_argument("--max-pending", type=int, default=10_000)
    parser.add_argument("--pad", type=int, default=0)
    parser.add_argument("--durability")
    options = parser.parse_args()
    if options.processes == 1:
        work(options, None, options.first)
        return
    context = multiprocessing.get_context(options.method)

    # Only forked processes inherit a handler; the others create one.
    handler = configure(options) if options.method == "fork" else None

    processes = [
        context.Process(target=work, args=(options, handler, options.first + number * options.count))
        for number in range(options.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))


if __name__ == "__main__":
    main()
