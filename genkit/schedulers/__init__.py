"""diffusers schedulers that diffusers lacks, one per file."""
