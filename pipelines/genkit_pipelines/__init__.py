"""Pipelines: what a person calls, one folder per modality, and the small trained ones we ship.

`image` and `speech` exist so far. Video and music come with their issues.
"""
