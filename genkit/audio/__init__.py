"""Sound as tensors: files, resampling, spectra, mels, pictures and players. No network is here."""
