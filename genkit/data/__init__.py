"""Datasets: the shipped digits and folders on disk."""
