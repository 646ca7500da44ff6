"""Caching, attention processors and compression for finished pipelines."""
