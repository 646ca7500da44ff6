"""Sound for a page: a spectrogram picture over a player, and rows of them as a piece of HTML, or
spectrograms alone as one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.audio.files import wav_bytes
from genkit.audio.spectra import SPEECH, Mels

# Black, violet, orange, pale yellow at equal distances: brighter is always louder.
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def spectrogram(x: Tensor, scale: int = 2) -> Any:
    """A normalised log-mel (frames, bands) as a picture, low bands at the bottom."""
    from PIL import Image

    loud = ((x.detach().float().cpu() + 1.2) / 2.2).clamp(0, 1).T.flip(0)
    table = torch.tensor(COLOURS, dtype=torch.float32)
    place = loud * (len(COLOURS) - 1)
    low = place.floor().long().clamp(max=len(COLOURS) - 2)
    share = (place - low)[..., None]
    pixels = table[low] * (1 - share) + table[low + 1] * share
    picture = Image.fromarray(pixels.round().to(torch.uint8).numpy())
    return picture.resize((picture.width * scale, picture.height), Image.Resampling.NEAREST)


def sheet(parts: Mapping[str, Sequence[Tensor]], stem: Path) -> Path:
    """Write {label: normalised log-mels (frames, bands)} to `stem`.png, a line of spectrograms
    under each label, and return that."""
    from PIL import Image, ImageDraw

    band, gap = 14, 4
    lines = {label: [spectrogram(mel) for mel in mels] for label, mels in parts.items()}
    columns = [
        max(each.width for each in column) + gap for column in zip(*lines.values(), strict=True)
    ]
    high = max(each.height for line in lines.values() for each in line)
    made = Image.new("RGB", (sum(columns), (band + high) * len(lines)), "white")
    draw = ImageDraw.Draw(made)
    for i, (label, line) in enumerate(lines.items()):
        draw.text((2, i * (band + high) + 1), label, fill="black")
        for k, each in enumerate(line):
            made.paste(each, (sum(columns[:k]), i * (band + high) + band))
    file = stem.with_name(stem.name + ".png")
    made.save(file, optimize=True)
    return file


def _data(kind: str, held: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(held).decode()}"


def player(x: Tensor, audio: Tensor, caption: str, mels: Mels = SPEECH) -> str:
    """HTML of one sound: its normalised log-mel (frames, bands), its samples (n,), its caption."""
    held = io.BytesIO()
    spectrogram(x).save(held, "PNG")
    picture = _data("image/png", held.getvalue())
    sound = _data("audio/wav", wav_bytes(audio, mels.sample_rate))
    said = escape(caption)
    return (
        f'<figure><img style="min-width:0" src="{picture}" alt="{said}"><br>'
        f'<audio controls preload="none" src="{sound}"></audio>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def rows(parts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """[(heading, players)] as HTML, one row of players under each heading."""
    return "".join(f"<h3>{escape(name)}</h3>" + "".join(players) for name, players in parts)
