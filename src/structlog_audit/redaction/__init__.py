"""Removal of secrets from events, before memory and disk."""
