"""Who acts, taken from the frameworks that know it, and carried to where the work is done.

``asgi`` (FastAPI, Starlette and any other), ``django`` and ``celery`` for requests and tasks, ``threads`` for executors and
threads, ``actor`` for the rules they share. Each is imported by its own name; this package imports nothing.
"""
