"""A Django application whose changes are tracked."""
