"""Sound for a page: a spectrogram picture over a player, and rows of them as a piece of HTML, or
spectrograms alone side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
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


def lines(parts: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """{label: normalised log-mels (frames, bands)} as {label: their spectrograms side by side}, the
    columns of all lines as wide."""
    from PIL import Image

    gap = 4
    drawn = {label: [spectrogram(mel) for mel in mels] for label, mels in parts.items()}
    columns = [
        max(each.width for each in column) + gap for column in zip(*drawn.values(), strict=True)
    ]
    found = {}
    for label, line in drawn.items():
        found[label] = Image.new("RGB", (sum(columns), max(each.height for each in line)), "white")
        for k, each in enumerate(line):
            found[label].paste(each, (sum(columns[:k]), 0))
    return found


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
