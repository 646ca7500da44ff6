"""Pipelines: what a person calls, one folder per modality, and the small trained ones we ship.

Only `image` exists so far. Video, speech and music come with their issues.
"""
