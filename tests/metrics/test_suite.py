"""All figures at once, on the digits and on a made-up modality."""

import math
import time

import pytest
import torch

from genkit.data.base import Samples
from genkit.metrics import (
    Reference,
    Seen,
    class_reference,
    compare,
    digits_reference,
    floor,
    measure,
    reference,
)


@pytest.fixture(scope="module")
def ref():
    return digits_reference()


@pytest.fixture(scope="module")
def real_floor(ref):
    return floor(ref)


class _Plane:
    """A feature network of points in the plane: themselves; the class is the half they lie in."""

    def features(self, x):
        return x

    def classify(self, x):
        return (x[:, 0] > 0).long()


def _points(n, seed):
    labels = torch.arange(n) % 2
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    x[:, 0] += 8 * labels - 4
    return Samples(x, {"label": labels}, "points", 2)


@pytest.fixture(scope="module")
def plane():
    return class_reference(_points(400, 0), _points(300, 1), _Plane())


def test_floor_of_the_digits(real_floor):
    """Committed figures: change them only with the split or the feature network."""
    assert real_floor["fd"] == pytest.approx(0.229, abs=0.005)
    assert real_floor["sw"] == pytest.approx(0.0410, abs=0.0005)
    assert real_floor["recall"] == pytest.approx(0.873, abs=0.01)
    assert real_floor["precision"] == pytest.approx(0.910, abs=0.01)
    assert abs(real_floor["mmd"]) < 5e-4 and abs(real_floor["kid"]) < 0.01
    assert real_floor["nearest"] == pytest.approx(2.17, abs=0.01)
    assert real_floor["copied"] == pytest.approx(0.01, abs=0.002)
    assert real_floor["n"] == real_floor["group"] == 898


def test_blending_towards_the_class_mean_is_ranked(ref, real_floor):
    """What few steps do. Every figure sees it but precision, which rises."""
    means = torch.stack([ref.train[ref.fresh_asked == c].mean(0) for c in range(10)])
    blend = [ref.train.lerp(means[ref.fresh_asked], w) for w in (0.15, 0.4)]
    rows = [real_floor] + [measure(x, ref.fresh_asked, ref) for x in blend]
    for worse_high in ("fd", "kid", "mmd", "sw", "precision", "density"):
        values = [row[worse_high] for row in rows]
        assert values == sorted(values), worse_high
    for worse_low in ("recall", "diversity"):
        values = [row[worse_low] for row in rows]
        assert values == sorted(values, reverse=True), worse_low
    result = compare(*(Seen.of(each, ref.net) for each in blend[:2]), ref, n_boot=10)
    assert result["fd"].share == result["sw"].share == 1


def test_two_thousand_samples_are_measured_in_time(ref):
    index = torch.arange(2000) % 898
    start = time.perf_counter()
    row = measure(ref.train[index], ref.fresh_asked[index], ref)
    assert time.perf_counter() - start < 9  # 0.4 s on a quiet core
    assert (row["n"], row["group"], row["groups"]) == (2000, 898, 2)
    assert row["copied"] == 1 and row["nearest"] < 1e-6


def test_groups_make_figures_compare_across_n(plane):
    many, few = _points(2000, 2), _points(400, 3)
    rows = [measure(s.x_0, s.cond["label"], plane) for s in (many, few)]
    assert rows[0]["groups"] == 5 and rows[0]["group"] == rows[1]["group"] == 400
    assert rows[0]["fd"] == pytest.approx(floor(plane)["fd"], abs=0.08)
    small = floor(plane, 50)
    assert small["groups"] == 8 and small["sw"] > 1.3 * floor(plane)["sw"]


def test_groups_are_drawn_at_random(plane):
    """Samples in the order of their classes must not fall into groups of one class."""
    points = _points(800, 2)
    order = points.cond["label"].argsort(stable=True)
    row = measure(points.x_0[order], points.cond["label"][order], plane)
    assert row["groups"] == 2 and row["fd"] < 0.5


def test_a_lost_mode_and_wrong_classes_are_seen(plane):
    points = _points(400, 2)
    left = points.x_0[:, 0] < 0
    lost = points.take(left)
    row = measure(lost.x_0, lost.cond["label"], plane)
    assert row["class_tv"] == 0.5 and row["recall"] < 0.6 and row["fd"] > 10
    assert row["class_accuracy"] == 1 and not math.isnan(row["diversity"])
    swapped = measure(points.x_0, 1 - points.cond["label"], plane)
    assert swapped["class_accuracy"] == 0 and swapped["class_tv"] == 0


def test_a_data_set_brings_figures_of_its_own():
    """Whatever samples are asked to be reaches them as it is, and no other figure needs it."""
    points, told = _points(40, 0), []

    def extra(samples, features, asked):
        told.append((len(samples), features.shape, asked))
        return {"sung": 0.5}

    x = points.x_0
    tunes = Reference.of("tunes", x, x, _Plane(), extra, (x, ["la"] * 40))
    row = measure(x[:10], ["do", "re"] * 5, tunes)
    assert row["sung"] == 0.5 and "class_accuracy" not in row and row["n"] == 10
    assert floor(tunes)["sung"] == 0.5
    assert told == [(10, (10, 2), ["do", "re"] * 5), (40, (40, 2), ["la"] * 40)]


def test_repeatable(plane):
    points = _points(1000, 2)
    rows = [measure(points.x_0, points.cond["label"], plane, seed=s) for s in (0, 0, 1)]
    assert rows[0] == rows[1] and rows[0]["fd"] != rows[2]["fd"]


def test_bad_input(plane):
    points = _points(20, 2)
    x, labels = points.x_0, points.cond["label"]
    with pytest.raises(ValueError, match="samples are"):
        measure(torch.zeros(20, 3), labels, plane)
    with pytest.raises(ValueError, match="19 labels or captions for 20 samples"):
        measure(x, labels[1:], plane)
    with pytest.raises(ValueError, match="groups of 3"):
        measure(x[:3], labels[:3], plane)
    with pytest.raises(ValueError, match="groups of 21 out of 20"):
        measure(x, labels, plane, group=21)
    broken = x.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 20 samples hold nan"):
        measure(broken, labels, plane)
    with pytest.raises(ValueError, match="those of: digits, emoji-scenes"):
        reference("emoji")
