"""The files of one audit log: their names, writing and reading."""
