"""The path of an event from a log record to the target."""
