"""Writing a trail."""
