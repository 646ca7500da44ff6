"""Handwritten digits: 1,797 grey images of 8x8, ten classes; ships with scikit-learn.

The test half of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI
Machine Learning Repository, 1998, doi 10.24432/C50P49), licence CC BY 4.0. Pixels count the ink
in 4x4 blocks, 0..16; here x_0 = pixel / 8 - 1, so they lie in [-1, 1] on a grid of 1/8.

The split is fixed and stratified: within each class the images are shuffled once by numpy's
RandomState(0) (its stream never changes, NEP 19), all classes are then laid end to end and every
second image goes to "train" (898), the others to "test" (899). The thirteen writers are not
recorded, so both halves hold all of them: "test" measures new images, not new writers.
"""

import numpy as np
import torch

from genkit.data.base import Samples
from genkit.data.short import SHORT_ON_DIGITS

SPLITS = ("train", "test", "all")
_BATCH = {"batch_size": 256, "mixed_precision": "bf16"}
_PAIRS = _BATCH | {"max_steps": 3000, "pairs": 40_000, "pair_steps": 8}
_TEACHER = {
    "max_steps": 12_000,
    "weight_decay": 0.01,
    "mixed_precision": "bf16",
    "sample_every": 2000,
    "measure_every": 1000,
    "checkpoint_every": 1000,
}
_MATCHING = _BATCH | {
    "warmup_share": 0.75,
    "lr": 3e-4,
    "fake_turns": 2,
    "adversarial": 0.05,
    "max_steps": 3600,
    "pairs": 60_000,
    "pair_steps": 8,
}
# Tuned: flow_matching, consistency, reflow, dmd2. The others have the settings of their kin, or
# those found on the analytic digits (genkit.data.short); no run has compared others.
PRESETS = {
    "flow_matching": _TEACHER,
    "edm": _TEACHER,
    "consistency": _BATCH | {"max_steps": 3000},
    "guidance_distill": _BATCH | {"max_steps": 2000},
    "dmm": _BATCH | {"max_steps": 2000},
    "regression": _PAIRS,
    "reflow": _PAIRS,
    "hipa": _PAIRS,
    # With a student of about half the parameters.
    "slimflow": _PAIRS | {"student_size": ("width=192", "depth=3")},
    "dmd2": _MATCHING,
    "f_distill": _MATCHING,
    "msd": _MATCHING,
    **{name: _BATCH | SHORT_ON_DIGITS[name] for name in ("ladd", "meanflow", "rcm")},
}


def load(split: str = "train") -> Samples:
    """The digits: x_0 (n, 1, 8, 8) float32 in [-1, 1], cond["label"] (n,) int64 in 0..9.

    split: "train" (898), "test" (899), or "all" (1,797, in scikit-learn's order).
    """
    if split not in SPLITS:
        raise ValueError(f"digits have no split {split!r}; choose one of {', '.join(SPLITS)}")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    index = np.arange(len(labels)) if split == "all" else _half(labels, split)
    x_0 = torch.from_numpy(pixels[index]).float().div(8).sub(1).reshape(-1, 1, 8, 8)
    return Samples(x_0, {"label": torch.from_numpy(labels[index]).long()}, "digits", 10)


def _half(labels: np.ndarray, split: str) -> np.ndarray:
    """Sorted indices of one half, every class halved (to within one image)."""
    rng = np.random.RandomState(0)
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    return np.sort(np.concatenate(by_class)[1 if split == "train" else 0 :: 2])
