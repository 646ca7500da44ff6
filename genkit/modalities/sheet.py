"""Rows of small pictures under their labels, as one PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

TILE = 48  # pixels a shown sample has at least, on its longer side


def write_sheet(rows: Mapping[str, Tensor], stem: Path) -> Path:
    """Write {label: pictures (n, c, h, w) in [-1, 1]} to `stem`.png, and return that."""
    return write_lines({label: _strip(samples) for label, samples in rows.items()}, stem)


def write_lines(lines: Mapping[str, Any], stem: Path) -> Path:
    """Write {label: a PIL image}, one below the other, each under its label, to `stem`.png, and
    return that."""
    from PIL import Image, ImageDraw

    band, width = 14, max(line.width for line in lines.values())
    height = sum(band + line.height for line in lines.values())
    sheet = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for label, line in lines.items():
        draw.text((2, top + 1), label, fill="black")
        sheet.paste(line, (0, top + band))
        top += band + line.height
    file = stem.with_name(stem.name + ".png")
    sheet.save(file)
    return file


def bytes_of(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1], clipped to that, as uint8 of the same shape on the CPU."""
    return pictures.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().byte()


def _strip(samples: Tensor) -> Any:
    """Pictures (n, c, s, s) in [-1, 1] side by side, enlarged without smoothing."""
    from PIL import Image

    n, channels, size, _ = samples.shape
    pixels = bytes_of(samples)
    pixels = pixels.expand(n, 3, size, size) if channels == 1 else pixels[:, :3]
    flat = nn.functional.pad(pixels, (0, 1, 0, 0), value=255)  # a gap of one pixel
    flat = flat.permute(2, 0, 3, 1).reshape(size, n * (size + 1), 3)
    scale = -(-TILE // size)
    image = Image.fromarray(flat.numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
