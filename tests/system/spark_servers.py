"""Spark on the loopback interface, started from pip's pyspark alone: a cluster with two workers, and a Connect server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from children import without_coverage
from servers import free_port, wait_until

SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "512m",
    "spark.ui.enabled": "false",
    # Queries of a few rows cost little then: no bytecode is made for them, and Java compiles fast.
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def environment(folder):
    """Write the settings of Spark to *folder*, and return the variables with which all of its processes find them."""
    folder.mkdir()
    (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in SETTINGS.items()))
    return {
        "SPARK_CONF_DIR": str(folder),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "600m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }


def home():
    """Return the folder of pip's pyspark."""
    import pyspark

    return Path(pyspark.__file__).parent


@contextlib.contextmanager
def process_of(log, program, *words):
    """Run a program of Spark for the duration of a ``with`` block, in a process group that ends with it."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [home() / "bin" / program, *map(str, words)],
            stdout=file, stderr=subprocess.STDOUT, env=without_coverage(os.environ), start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def accepts(port):
    """Return whether a server listens on *port*."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def cluster(folder):
    """Start a master and two workers, and provide the URL of the master."""
    folder.mkdir()
    port = free_port()
    master = ("org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", port, "--webui-port", 0)
    url = f"spark://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        log = folder / "master.log"
        started = stack.enter_context(process_of(log, "spark-class", *master))
        wait_until(lambda: accepts(port), started, "the master")
        for number in range(2):
            words = (
                "--host",
                "127.0.0.1",
                "--cores",
                1,
                "--memory",
                "1g",
                "--webui-port",
                0,
                "-d",
                folder / str(number),
            )
            stack.enter_context(
                process_of(
                    folder / f"{number}.log", "spark-class", "org.apache.spark.deploy.worker.Worker", *words, url
                )
            )
        wait_until(lambda: log.read_text().count("Registering worker") == 2, started, "two workers")
        yield url


@contextlib.contextmanager
def connect_server(folder):
    """Start a Connect server, and provide its URL."""
    folder.mkdir()
    port = free_port()
    words = ("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "--master", "local[2]",
             "--conf", f"spark.connect.grpc.binding.port={port}", "spark-internal")  # fmt: skip
    with process_of(folder / "connect.log", "spark-submit", *words) as process:
        wait_until(lambda: accepts(port), process, "the Connect server", 120)
        yield f"sc://127.0.0.1:{port}"
