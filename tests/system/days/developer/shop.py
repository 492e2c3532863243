"""A shop that logs with structlog, to stderr."""

import logging.config

import structlog

LOGGING = {
    "version": 1,
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
}
logging.config.dictConfig(LOGGING)

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
log = structlog.get_logger()


def delete(user, order):
    """Delete an order."""
    log.info("order.delete", user_id=user, entry_ids=[order])


def refund(user, order):
    """Refuse a refund."""
    log.error("order.refund", user_id=user, entry_ids=[order])


if __name__ == "__main__":
    log.warning("shop starts", version="1.0")
    delete("ann", "order-17")
    delete("bob", "order-18")
    refund("bob", "order-17")
