"""The files of one audit log."""
