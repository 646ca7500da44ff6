"""Music: songs by rule, rendered with fluidsynth and TimGM6mb by scripts/make_music.py.

All of it is synthesised from seeds, with true tempo, key, chords and instruments. Melody, voicing,
rhythm, loudness, timing and reverb vary and are told in no condition.
"""

from genkit.data.base import Samples
from genkit.data.cache import cache_folder
from genkit.data.music_folder import is_music_folder, read_music_folder

NAME = "music"
# Settings of the methods for these songs. Untuned: sized by measured seconds of one thread (0.55 a
# step of the teacher, at batch 8 in bfloat16) so that codec, teacher and students fit into three
# hours of one core; no run of that length has been made.
_COMMON = {
    "batch_size": 8,
    "muon": r"blocks\..*(qkv|out|up|down)\.weight",
    "mixed_precision": "bf16",
    "measure_every": 0,
    "evaluate_n": 64,
    "evaluate_seeds": (0,),
}
PRESETS = {
    "flow_matching": _COMMON
    | {
        "max_steps": 6000,
        "warmup": 200,
        "weight_decay": 0.01,
        "time": "shifted",
        "slow": r"text_encoder\.",
        "steps": 20,
        "sample_every": 1500,
        "checkpoint_every": 500,
        "evaluate_steps": (1, 4, 20),
    },
    "reflow": _COMMON
    | {
        "guidance": 2.0,
        "max_steps": 1500,
        "pairs": 1500,
        "pair_steps": 12,
        "pair_precision": "bf16",
        "renew": False,
        "evaluate_steps": (1, 4, 20),
    },
    "consistency": _COMMON
    | {"guidance": 2.0, "max_steps": 1500, "steps": 4, "evaluate_steps": (1, 4, 20)},
}


def load(split: str = "train") -> Samples:
    """A split of what the script has made. ValueError, saying how, where it has not run."""
    folder = cache_folder() / NAME
    if not is_music_folder(folder):
        raise ValueError(
            f"{NAME} is not made yet: apt-get install fluidsynth timgm6mb-soundfont, then python "
            "scripts/make_music.py"
        )
    return read_music_folder(folder, split, NAME)
