"""Filters, statistics and the methods that every source of events has."""
