"""Files that an export can carry, for auditors without this package: ``verify_trail.py`` and ``check_checkpoint.sh``."""
