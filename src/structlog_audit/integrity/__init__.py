"""The evidence that a trail is as it was written: hash tree, signed checkpoints, chains, and their verification.

Internal, except for what the guide names.
"""
