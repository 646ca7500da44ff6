"""Train the detector of emoji scenes that prompt following is measured by.

    python scripts/train_scene_detector.py

Takes some minutes on one core, no network. Writes genkit/metrics/scene_detector.safetensors (half
precision) and, beside it, a json with the command, seed and accuracies. Every figure on emoji
scenes changes with the weights: do not retrain them lightly.

Half of the scenes are the data set's own, of all splits; the other half are free ones: up to four
objects of any kind and size, some see-through, some rubbish (in pieces, melted, smeared, two at
once), which is no object: a yellow blot is no star. All are moved, scaled, bent, blurred and made
noisy a little, so that samples that are not quite perfect are read fairly.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from genkit.data import emoji_scenes
from genkit.data.emoji_scenes import LENGTHS, paste, sprites
from genkit.data.scenes import BACKGROUNDS
from genkit.metrics import detector
from genkit.metrics.detector import CELL, GRID, OBJECTS, SIZE, Maps, SceneDetector, Summary
from genkit.metrics.following import following
from genkit.training.precision import autocast

MOST = 4  # objects in a scene
SPREAD = 2.0  # pixels: deviation of an object's bump
NOISE, BLUR = 0.15, 0.9  # the most of each: deviations, in pixel values and in pixels
UNSEEN = 7  # a seed of scenes that training does not draw
COLOURS = np.array(list(BACKGROUNDS.values())) / 255


@dataclass
class Scenes:
    """x (n, 3, 32, 32) uint8; which, large (n, 4): -1 where there is no object; centre (n, 4, 2):
    x and y in pixels; background (n,); rubbish (n,): how much of it."""

    x: Tensor
    which: Tensor
    large: Tensor
    centre: Tensor
    background: Tensor
    rubbish: Tensor

    def take(self, index: Tensor) -> "Scenes":
        """Some of them."""
        return Scenes(*(value[index] for value in vars(self).values()))


# Picture, objects (which, large, x, y), background, pieces of rubbish.
Row = tuple[np.ndarray, list[tuple[int, int, float, float]], int, int]


@cache
def rubbish(length: int, n: int = 1800) -> np.ndarray:
    """(n, length, length, 4) of what is no object, though of its colours: sprites with their blocks
    shuffled, melted, frayed, smeared, or two at once, half and half or see-through."""
    rng = torch.Generator().manual_seed(length)
    tiles = torch.from_numpy(sprites(length)).permute(0, 3, 1, 2)
    kinds = torch.randint(OBJECTS, (n,), generator=rng)
    others = (kinds + torch.randint(1, OBJECTS, (n,), generator=rng)) % OBJECTS
    pieces, melted, frayed, smeared, halves, both = (
        (tiles[kinds[part]], tiles[others[part]]) for part in torch.tensor_split(torch.arange(n), 6)
    )
    side = length // 4
    blocks = F.unfold(pieces[0], side, stride=side)
    order = torch.rand(len(blocks), 1, 16, generator=rng).argsort(2).expand_as(blocks)
    strong = torch.full((len(melted[0]),), length / 4)
    edgy = torch.full((len(frayed[0]),), length / 7)
    smears = F.pad(smeared[0], (4, 4, 4, 4))
    for _ in range(3):  # the blur reaches two pixels at once
        smears = blurred(smears, torch.full((len(smears),), 1.5))
    made = [
        F.fold(blocks.gather(2, order), length, side, stride=side),
        bent(melted[0], strong, rng, knots=5),
        bent(frayed[0], edgy, rng, knots=length // 2),
        smears[..., 4:-4, 4:-4],
        torch.cat([halves[0][..., : length // 2], halves[1][..., length // 2 :]], 3),
        (both[0] + both[1]) / 2,
    ]
    return torch.cat(made).permute(0, 2, 3, 1).numpy()


def own(rng: np.random.RandomState) -> Row:
    """A scene of the data set's grammar, of any split."""
    split = rng.choice(emoji_scenes.SPLITS, p=[0.8, 0.1, 0.1])
    scene = emoji_scenes.scene(rng, split)
    size, background = scene.asked.size, scene.asked.background
    assert size is not None and background is not None
    half, large = LENGTHS[size] / 2, int(size == "large")
    objects = [
        (which, large, x + half, y + half)
        for which, (x, y) in zip(scene.objects, scene.boxes, strict=True)
    ]
    return (scene.render() + 1) / 2, objects, list(BACKGROUNDS).index(background), 0


def free(rng: np.random.RandomState) -> Row:
    """Up to four objects of any kind and size; rubbish and what is hardly seen do not count."""
    background = rng.randint(len(COLOURS))
    shade = COLOURS[background] * (1 + 0.08 * rng.uniform(-1, 1)) + 0.03 * rng.uniform(-1, 1, 3)
    picture = np.broadcast_to(np.float32(shade.clip(0, 1)), (SIZE, SIZE, 3)).copy()
    placed: list[tuple[float, float, int]] = []
    objects, spoilt = [], 0
    for _ in range(rng.choice(MOST + 1, p=[0.08, 0.2, 0.32, 0.28, 0.12])):
        large = rng.randint(2)
        length = list(LENGTHS.values())[large]
        for _ in range(10):
            left, top = rng.randint(SIZE - length + 1, size=2)
            x, y = left + length / 2, top + length / 2
            if all(max(abs(x - a), abs(y - b)) >= (length + c) / 2 - 2 for a, b, c in placed):
                break
        else:
            continue
        which, kind = rng.randint(OBJECTS), rng.uniform()
        if objects and rng.uniform() < 0.3:
            which = objects[0][0]
        sprite = sprites(length)[which]
        if kind < 0.35:
            sprite = rubbish(length)[rng.randint(len(rubbish(length)))]
            spoilt += 1
        elif kind < 0.43:
            sprite = sprite * np.float32(rng.uniform(0.05, 0.33))
        else:
            sprite = sprite * np.float32(rng.uniform(0.67, 1) if kind < 0.6 else 1)
            objects.append((which, large, x, y))
        paste(picture, sprite[:, ::-1] if rng.randint(2) else sprite, left, top)
        placed.append((x, y, length))
    return picture, objects, background, spoilt


def draw(n: int, seed: int) -> Scenes:
    """n scenes, every second one free."""
    rng = np.random.RandomState([len(emoji_scenes.SPLITS) + 1, seed])
    rows = [(free if i % 2 else own)(rng) for i in range(n)]
    table = np.full((n, MOST, 4), -1.0, dtype=np.float32)
    for i, (_, objects, _, _) in enumerate(rows):
        table[i, : len(objects)] = np.array(objects).reshape(-1, 4)
    pictures = np.stack([(picture * 255).round().astype(np.uint8) for picture, *_ in rows])
    known = torch.from_numpy(table)
    return Scenes(
        torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(),
        known[..., 0].long(),
        known[..., 1].long(),
        known[..., 2:],
        torch.tensor([background for _, _, background, _ in rows]),
        torch.tensor([spoilt for *_, spoilt in rows]),
    )


def spoil(scenes: Scenes, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(pictures in [-1, 1] moved, scaled, bent, blurred, noisy; centres moved likewise; flaws
    (n, 3): the noise's and blur's share of the most, and pieces of rubbish)."""
    n = len(scenes.x)

    def some(often: float) -> Tensor:
        """Uniform in (0, 1] for a share `often` of the rows, 0 for the others."""
        drawn = torch.rand(2, n, generator=rng)
        return (1 - drawn[1]) * (drawn[0] < often)

    x = scenes.x.float() / 127.5 - 1
    move = (torch.rand(n, 2, generator=rng) - 0.5) * (some(0.6)[:, None] > 0)
    scale = 1 + 0.04 * (2 * torch.rand(n, generator=rng) - 1) * (some(0.4) > 0)
    x = bent(x, 0.8 * some(0.4), rng, move=move, scale=scale)
    middle = SIZE / 2
    centre = (scenes.centre - middle) * scale[:, None, None] + middle + move[:, None]
    blur, noise = some(0.4), some(0.5)
    x = blurred(x, BLUR * blur)
    x = x + (0.06 * some(0.5)[:, None] * torch.randn(n, 3, generator=rng))[:, :, None, None]
    x = x + (NOISE * noise).view(-1, 1, 1, 1) * torch.randn(x.shape, generator=rng)
    return x.clamp(-1, 1), centre, torch.stack([noise, blur, scenes.rubbish], 1)


def bent(
    x: Tensor,
    most: Tensor,
    rng: torch.Generator,
    knots: int = 6,
    move: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Pictures (n, c, s, s) moved by (n, 2) pixels, scaled by (n,), and bent smoothly by deviations
    of `most` (n,) pixels at knots x knots places."""
    n, _, size, _ = x.shape
    move = torch.zeros(n, 2) if move is None else move
    scale = torch.ones(n) if scale is None else scale
    eye = torch.eye(2) / scale[:, None, None]
    shift = -(move * 2 / size)[:, :, None] / scale[:, None, None]
    grid = F.affine_grid(torch.cat([eye, shift], 2), list(x.shape), align_corners=False)
    field = torch.randn(n, 2, knots, knots, generator=rng) * (most * 2 / size)[:, None, None, None]
    field = F.interpolate(field, (size, size), mode="bicubic", align_corners=True)
    grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Each picture (n, c, h, w) under a Gaussian of its own deviation (n,), in pixels."""
    n, channels = x.shape[:2]
    steps = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-steps.square() / (2 * sigma.clamp(min=1e-2).square()[:, None]))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[None]
    x = F.conv2d(x, kernel[:, None, None, :], groups=n * channels)
    x = F.conv2d(x, kernel[:, None, :, None], groups=n * channels)
    return x[0].unflatten(0, (n, channels))


def targets(scenes: Scenes, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(heat (n, 16, 16); the object and whether it is large of the nearest centre, (n, 16, 16))."""
    places = torch.arange(GRID) * CELL
    cells = torch.stack([places.repeat(GRID), places.repeat_interleave(GRID)], 1)
    apart = (centre[:, :, None] - cells).square().sum(3)
    bumps = torch.exp(-apart / (2 * SPREAD**2)) * (scenes.which >= 0)[:, :, None]
    heat, nearest = bumps.max(1)
    grid = (GRID, GRID)
    which, large = (
        each.gather(1, nearest).clamp(min=0).unflatten(1, grid)
        for each in (scenes.which, scenes.large)
    )
    return heat.unflatten(1, grid), which, large


def cell_loss(maps: Maps, scenes: Scenes, centre: Tensor) -> Tensor:
    """What cells say: of the object and size only near centres."""
    heat, which, large = targets(scenes, centre)
    weight = heat * (heat > 0.3)
    weight = weight / weight.sum().clamp(min=1)
    # Of 256 cells a dozen are warm: their cross-entropy is to weigh as much as the others'.
    bump = F.binary_cross_entropy_with_logits(maps.heat, heat, reduction="none")
    told = F.cross_entropy(maps.object, which, reduction="none", label_smoothing=0.02)
    size = F.binary_cross_entropy_with_logits(maps.large, large.float(), reduction="none")
    ground = F.cross_entropy(maps.background, scenes.background, label_smoothing=0.02)
    return 20 * (bump * (0.5 + 4 * heat)).mean() + ((told + size) * weight).sum() + 0.5 * ground


def summary_loss(told: Summary, scenes: Scenes, centre: Tensor, flaws: Tensor) -> Tensor:
    """What features say."""
    n, there = len(centre), scenes.which >= 0
    quarter = (centre[..., 0] > SIZE / 2).long() + 2 * (centre[..., 1] > SIZE / 2).long()
    quarters = torch.zeros(n, OBJECTS * 4)
    quarters.scatter_add_(1, (scenes.which.clamp(min=0) * 4 + quarter), there.float())
    number = there.sum(1)
    share = (scenes.large.clamp(min=0) * there).sum(1) / number.clamp(min=1)
    heat = F.max_pool2d(targets(scenes, centre)[0][:, None], GRID // 4).flatten(1)
    sure = F.binary_cross_entropy_with_logits
    size = sure(told.large, share, reduction="none") * (number > 0)
    return (
        20 * sure(told.quarters, quarters.clamp(max=1))
        + F.cross_entropy(told.count, number)
        + size.mean()
        + F.cross_entropy(told.background, scenes.background)
        + 2 * sure(told.layout, heat)
        + 2 * F.mse_loss(told.flaws, flaws)
    )


def train(scenes: Scenes, epochs: int, lr: float, seed: int) -> SceneDetector:
    """A detector; AdamW, one cycle, bfloat16 forward passes."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net, batch, n = SceneDetector(), 128, len(scenes.x)
    steps = epochs * (n // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    begin = time.process_time()
    for step in range(steps):
        if step % (n // batch) == 0:
            order = torch.randperm(n, generator=rng)
        some = scenes.take(order[batch * (step % (n // batch)) :][:batch])
        x, centre, flaws = spoil(some, rng)
        with autocast(torch.device("cpu"), "bf16"):
            maps, told = net(x.to(memory_format=torch.channels_last))
        maps, told = Maps(*(v.float() for v in maps)), Summary(*(v.float() for v in told))
        parts = cell_loss(maps, some, centre), summary_loss(told, some, centre, flaws)
        optimizer.zero_grad()
        sum(parts, torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            cells, features = (round(part.item(), 4) for part in parts)
            print(f"{step}/{steps}  {cells}  {features}  {time.process_time() - begin:.0f} s")
    return net


def accuracy(net: SceneDetector, split: str, seed: int) -> dict[str, float]:
    """Each attribute, and all at once, on 4,000 real scenes whose captions leave nothing open."""
    made = emoji_scenes.scenes(split, 4000, seed)
    shares = following(net.see(emoji_scenes.rendered(made)), [each.asked for each in made])
    return {name: round(share, 4) for name, share in shares.items()}


def main() -> None:
    """Train, save, print what was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=detector.WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    net = train(draw(args.scenes, args.seed), args.epochs, args.lr, args.seed).eval()
    # Rounded first, so that what is measured here is what ships.
    net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    net.standardise_on(emoji_scenes.load("train", n=4000).x_0)
    record = {
        "command": " ".join(["python scripts/train_scene_detector.py", *sys.argv[1:]]),
        "scenes": args.scenes,
        "epochs": args.epochs,
        "lr": args.lr,
        "seed": args.seed,
        "test": accuracy(net, "test", UNSEEN),
        "test_seed": UNSEEN,
        "train": accuracy(net, "train", UNSEEN),
        "parameters": sum(p.numel() for p in net.parameters()),
        "cpu_seconds": round(time.process_time() - start),
        "torch": torch.__version__.partition("+")[0],
    }
    whole = {"mean", "std"}  # features are divided by these, so they keep all their digits
    state = {k: v if k in whole else v.half() for k, v in net.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, args.out)
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
