"""Pipelines: what a person calls, one folder per modality, and the small trained ones we ship.

`image`, `video`, `speech` and `music`.
"""
