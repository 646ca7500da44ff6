"""Gradient-free search over steps, solver coefficients and checkpoints."""
