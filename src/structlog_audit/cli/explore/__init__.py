"""Exploring events in a browser: a Datasette site of an export to SQLite, for this machine and this user only."""
