"""Reading a trail."""
