"""Clips as files: a strip of frames a clip as PNG, or an mp4 where PyAV is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genkit.modalities.sheet import bytes_of, write_lines

RATE = 10  # frames per second of a file
SCALE = 4  # pixels of an mp4 for one of a small frame
NEEDED = 'mp4 files need PyAV: pip install "genkit[video]"'


def has_encoder() -> bool:
    """Whether an mp4 can be written here."""
    return importlib.util.find_spec("av") is not None


def write_strips(rows: Mapping[str, Tensor], stem: Path) -> Path:
    """Write {label: clips (n, f, c, h, w) in [-1, 1]} to `stem`.png, a line of frames a clip, and
    return that."""
    from PIL import Image

    lines = {}
    for label, clips in rows.items():
        n, f, channels, high, wide = clips.shape
        pixels = bytes_of(clips).expand(n, f, 3, high, wide)
        strip = pixels.permute(0, 3, 1, 4, 2).reshape(n * high, f * wide, 3)
        lines[label] = Image.fromarray(strip.numpy())
    return write_lines(lines, stem)


def write_clip(frames: Sequence[Any], stem: Path) -> Path:
    """Write one clip of PIL images to `stem` and .mp4, or .png where no encoder is installed; no
    frame is smoothed. Returns the file. OSError where it cannot be written."""
    if has_encoder():
        return _write_mp4(frames, stem.with_name(stem.name + ".mp4"))
    from PIL import Image

    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for i, frame in enumerate(frames):
        strip.paste(frame, (i * width, 0))
    file = stem.with_name(stem.name + ".png")
    strip.save(file)
    return file


def _write_mp4(frames: Sequence[Any], file: Path) -> Path:
    from PIL import Image

    av: Any = importlib.import_module("av")
    width, height = (SCALE * side for side in frames[0].size)
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "12"}
        for frame in frames:
            large = frame.resize((width, height), Image.Resampling.NEAREST)
            for packet in stream.encode(av.VideoFrame.from_image(large)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file
