"""Measurements that one command repeats, such as the analytic digits."""
