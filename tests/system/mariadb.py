"""A MariaDB server of its own for a test, in a folder of its own, reached by a socket there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from servers import stop, wait_until

DATABASE = "audit"


def program(name):
    """Return the path of a program of MariaDB; that of the server is in a folder for administrators."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None, f"{name} is missing: apt-get install mariadb-server-core"
    return path


@contextlib.contextmanager
def mariadb():
    """Run a server until the block ends; yield the path of its socket. Its user ``root`` has no password."""
    # The server refuses to run as root, and tmp_path belongs to root then.
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = tempfile.mkdtemp(prefix="mariadb")
    shutil.chown(folder, user)
    options = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}

    data, log, socket = (Path(folder, name) for name in ("data", "log", "socket"))
    try:
        install = [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        install += ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
        subprocess.run(install, check=True, capture_output=True, cwd=folder, **options)

        command = [program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking"]
        command += [f"--pid-file={folder}/pid", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=5"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **options)
        try:
            wait_until(lambda: b"ready for connections" in log.read_bytes(), server, "MariaDB")
            yield str(socket)
        finally:
            stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty_database(socket):
    """Create the database, without any tables."""
    import pymysql

    with pymysql.connect(unix_socket=str(socket), user="root", autocommit=True) as connection:
        connection.query(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.query(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
