"""Integrations with frameworks and monitoring systems. Import each module by its name; this package imports none of them.

=================  ====================  ====================================================================
module             extra to install      purpose
=================  ====================  ====================================================================
``asgi``           none                  names the actor in the events of FastAPI, Starlette and other ASGI requests
``django``         ``django``            names the actor in the events of Django requests; records changes of models
``sqlalchemy``     ``sqlalchemy``        records changes of models
``celery``         ``celery``            carries the actor from the sender of a task to its worker
``threads``        none                  carries the actor to executors and threads
``actor``          none                  the rules of the actor that most of these share
``prometheus``     ``prometheus``        audit events and the counters of handlers as Prometheus metrics
``opentelemetry``  ``opentelemetry``     audit events as log records of OpenTelemetry
=================  ====================  ====================================================================

Install an extra with ``pip install structlog-audit[NAME]``. The actor is the user, session, request and client of an event.
"""
