"""Speech: text to speech."""
