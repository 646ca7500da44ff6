"""Measures of generated samples against real data and against the teacher."""
