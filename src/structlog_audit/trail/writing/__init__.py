"""Writing the files of a trail."""
