"""Where what is made once is kept: data sets, samples, teacher pairs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$GENKIT_CACHE, or ~/.cache/genkit."""
    return Path(os.environ.get("GENKIT_CACHE") or Path.home() / ".cache" / "genkit")
