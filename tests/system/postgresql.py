"""A PostgreSQL server of its own for a test, in a folder of its own, reached by a socket there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from servers import wait_until

DATABASE = "audit"


def program(name):
    """Return the path of a program of PostgreSQL; Debian has the newest version in a folder of its own."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = shutil.which(name) or (str(found[-1]) if found else None)
    assert path is not None, f"{name} is missing: apt-get install postgresql"
    return path


@contextlib.contextmanager
def postgresql():
    """Run a server until the block ends; yield the folder of its socket."""
    # The server refuses to run as root, and tmp_path belongs to root then.
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = tempfile.mkdtemp(prefix="pg")
    shutil.chown(folder, user)
    options = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}

    data, log = Path(folder, "data"), Path(folder, "log")
    try:
        initdb = [program("initdb"), "-D", data, "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--locale", "C", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **options)

        command = [program("postgres"), "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        # Threads that change the same rows wait this long for each deadlock, by default a second.
        command += ["-c", "max_prepared_transactions=10", "-c", "deadlock_timeout=50ms"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **options)
        try:
            wait_until(lambda: _create_database(folder), server, "a connection to PostgreSQL")
            yield folder
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_database(folder):
    import psycopg

    try:
        with psycopg.connect(host=folder, user=DATABASE, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True
