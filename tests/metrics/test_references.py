"""The references by name; here the emoji scenes', with fewer scenes (test_suite has the digits)."""

import time

import pytest
import torch

from genkit.data import emoji_scenes
from genkit.metrics import Seen, compare, floor, measure, reference
from genkit.metrics.references import emoji_scenes_reference

N = 150


@pytest.fixture(scope="module")
def ref():
    return emoji_scenes_reference(scenes=N)


@pytest.fixture(scope="module")
def captions():
    return emoji_scenes.load("test", n=N).captions


@pytest.fixture(scope="module")
def real_floor(ref):
    return floor(ref)


def test_the_floor_is_real_scenes_of_the_same_captions(ref, captions, real_floor):
    assert ref.fresh_asked == captions and ref.name == "emoji-scenes"
    assert not torch.equal(ref.fresh, ref.real)
    assert real_floor["follows"] >= 0.97 and real_floor["follows_chance"] < 0.05
    assert 0.85 < real_floor["diversity"] < 1.15
    assert real_floor["n"] == real_floor["group"] == N and real_floor["copied"] < 0.03
    assert not {"class_accuracy", "class_tv", "diversity_worst"} & real_floor.keys()


def test_worse_samples_have_worse_figures(ref, captions, real_floor):
    rng = torch.Generator().manual_seed(0)
    other = torch.where((torch.arange(N) % 2 == 0)[:, None, None, None], ref.fresh, ref.fresh[0])
    for x in (ref.fresh + 0.4 * torch.randn(ref.fresh.shape, generator=rng), other):
        row = measure(x, captions, ref)
        assert row["fd"] > 1.5 * real_floor["fd"] and row["follows"] < real_floor["follows"] - 0.02
    assert row["recall"] < real_floor["recall"] and row["mmd"] > real_floor["mmd"]
    one, two = Seen.of(ref.fresh, ref.net), Seen.of(other, ref.net)
    assert compare(one, two, ref, n_boot=3)["fd"].share == 1


def test_captions_belong_to_their_samples(ref, captions, real_floor):
    row = measure(ref.fresh, captions[1:] + captions[:1], ref)
    assert row["follows"] < 0.1 and row["fd"] == pytest.approx(real_floor["fd"])


def test_bad_input(ref, captions):
    with pytest.raises(ValueError, match="149 labels or captions for 150"):
        measure(ref.fresh, captions[1:], ref)
    with pytest.raises(ValueError, match="no caption of an emoji scene"):
        measure(ref.fresh[:6], ("a dog",) * 6, ref)
    with pytest.raises(ValueError, match="samples are"):
        measure(torch.zeros(6, 3, 64, 64), captions[:6], ref)


@pytest.mark.slow
def test_two_thousand_scenes_are_measured_in_time():
    ref = reference("emoji-scenes")
    start = time.process_time()
    row = measure(ref.fresh, ref.fresh_asked, ref)
    assert time.process_time() - start < 10  # 6 s
    assert row["fd"] == pytest.approx(0.382, abs=0.02) and row["follows"] > 0.99
    assert row["diversity"] == pytest.approx(1, abs=0.06)
