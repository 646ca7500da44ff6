"""Kernels: functions with a slow reference of the same signature beside them.

This package is empty for now. Sparse attention and its reference come with the kernels issue;
nothing in genkit calls this package until then.
"""
