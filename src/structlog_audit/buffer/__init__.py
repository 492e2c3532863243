"""The bounded, indexed buffer of one handler."""
