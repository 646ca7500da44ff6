"""Flite speech: Debian's flite voices slt, rms, awb and kal16, made by scripts/make_speech.py.

All of it is synthesised: whatever is trained on it learns a synthesiser. Rate, pitch contour and
equaliser vary and are told in no condition, so that a text does not determine the sound.
"""

from genkit.data.base import Samples
from genkit.data.cache import cache_folder
from genkit.data.speech_folder import holds, read_folder
from genkit.data.speech_samples import SPOKEN

NAME = "speech-flite"
METHOD = "edm"
PRESETS = SPOKEN


def load(split: str = "train") -> Samples:
    """A split of what the script has made. ValueError, saying how, where it has not run."""
    folder = cache_folder() / NAME
    if not holds(folder):
        raise ValueError(
            f"{NAME} is not made yet: apt-get install flite, then python scripts/make_speech.py"
        )
    return read_folder(folder, split, NAME)
