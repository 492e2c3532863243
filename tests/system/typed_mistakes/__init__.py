"""A module with mistakes of users, each of which a type checker reports."""
