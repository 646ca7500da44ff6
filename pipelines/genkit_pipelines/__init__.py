"""Pipelines: what a person calls, one folder per modality, and the small trained ones we ship.

`image`, `video` and `speech` exist so far. Music comes with its issue.
"""
