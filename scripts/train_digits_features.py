"""Train the classifier of digits whose features the metrics look through.

    python scripts/train_digits_features.py

Takes some seconds on one core, no network. Writes genkit/metrics/digits_features.safetensors and,
beside it, a json with the command, seed and accuracy. Every figure measured on these features
changes with the weights: do not retrain them lightly.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from genkit.data import digits
from genkit.data.base import Samples
from genkit.metrics.features import DIGITS_WEIGHTS, FeatureNet


def shift(x: Tensor, rng: torch.Generator) -> Tensor:
    """Each image moved by up to half a pixel on either axis (bilinear), paper colour moves in."""
    move = (torch.rand(len(x), 2, generator=rng) - 0.5) * (2 / x.shape[-1])
    eye = torch.eye(2).expand(len(x), 2, 2)
    grid = F.affine_grid(torch.cat([eye, move[:, :, None]], 2), list(x.shape), align_corners=False)
    # Outside an image lies -1, the colour of the paper; grid_sample pads with 0.
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def train(data: Samples, epochs: int, lr: float, seed: int) -> FeatureNet:
    """A classifier of `data`; cosine learning rate, AdamW, label smoothing 0.05."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net, batch = FeatureNet(), 64
    steps = epochs * -(-len(data) // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for index in torch.randperm(len(data), generator=rng).split(batch):
            logits = net(shift(data.x_0[index], rng))
            loss = F.cross_entropy(logits, data.cond["label"][index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.standardise_on(data.x_0)
    return net.eval()


def accuracy(net: FeatureNet, data: Samples) -> float:
    """Share of `data` classified as labelled."""
    return (net.classify(data.x_0) == data.cond["label"]).float().mean().item()


def main() -> None:
    """Train, save, print what was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DIGITS_WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    net = train(digits.load("train"), args.epochs, args.lr, args.seed)
    record = {
        "command": " ".join(["python scripts/train_digits_features.py", *sys.argv[1:]]),
        "epochs": args.epochs,
        "lr": args.lr,
        "seed": args.seed,
        "train_accuracy": round(accuracy(net, digits.load("train")), 4),
        "test_accuracy": round(accuracy(net, digits.load("test")), 4),
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__.partition("+")[0],
    }
    save_file(net.state_dict(), args.out)
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
