"""Music: songs by rule, rendered with fluidsynth and TimGM6mb by scripts/make_music.py.

All of it is synthesised from seeds, with true tempo, key, chords and instruments. Melody, voicing,
rhythm, loudness, timing and reverb vary and are told in no condition.
"""

from genkit.data.base import Samples
from genkit.data.cache import cache_folder
from genkit.data.music_folder import holds, read_folder
from genkit.data.music_samples import PLAYED

NAME = "music"
PRESETS = PLAYED


def load(split: str = "train") -> Samples:
    """A split of what the script has made. ValueError, saying how, where it has not run."""
    folder = cache_folder() / NAME
    if not holds(folder):
        raise ValueError(
            f"{NAME} is not made yet: apt-get install fluidsynth timgm6mb-soundfont, then python "
            "scripts/make_music.py"
        )
    return read_folder(folder, split, NAME)
