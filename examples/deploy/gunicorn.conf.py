"""gunicorn: a port for Prometheus in each worker, since a collector covers one process."""

import os
from itertools import count

workers = int(os.environ.get("WEB_CONCURRENCY", "4"))
graceful_timeout = 30

FIRST_PORT = int(os.environ.get("METRICS_PORT", "9100"))
ADDRESS = os.environ.get("METRICS_ADDRESS", "127.0.0.1")


def post_worker_init(worker):
    """Serve the metrics of this worker on the first port that is free."""
    from prometheus_client import REGISTRY, start_http_server

    from structlog_audit.contrib.prometheus import AuditCollector

    REGISTRY.register(AuditCollector())
    for port in count(FIRST_PORT):
        # While workers are replaced, there are twice as many.
        if port == FIRST_PORT + 2 * workers:
            raise RuntimeError(f"no port is free from {FIRST_PORT} to {port - 1}")
        try:
            start_http_server(port, ADDRESS)
        except OSError:
            continue
        worker.log.info("metrics on port %d", port)
        break
