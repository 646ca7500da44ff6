"""Denoisers: networks on a Path, and the adapters that make foreign models one."""
