"""Music: text to music."""
