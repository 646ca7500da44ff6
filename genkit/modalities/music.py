"""Music of a text, a tempo, a key, an instrument and chords: latents of a codec, in crops.

Data are pieces of sound; what is learned are crops of their latents, each told what its own frames
know of the piece (genkit.harmony), so that pieces of any length can be made. A teacher trained here
reads tokens, and its text encoder is trained with it; its students read what that encoder makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genkit.data.base import Gathered, Prompts, Samples
from genkit.data.music_samples import HOP, plan_of
from genkit.denoisers.diffusers import Loaded
from genkit.harmony import KEYS, WIDTH, Plan, planned
from genkit.modalities.base import Modality
from genkit.modalities.sheet import write_lines

if TYPE_CHECKING:
    from genkit.metrics import Reference

FRAMES = 192  # 8.9 s: what a network is trained on
STEP = 96  # frames between the beginnings of two crops of a piece
MEASURED = 400  # crops that are measured against: 0.3 GB of sound
PART = 8  # pieces that a codec is given at once
TEXTS = 64  # texts that an encoder is given at once


@dataclass(frozen=True)
class Crop:
    """What one sample is asked to be: FRAMES frames from `first` on of a piece with these tags, key
    and instrument (numbers), and plan."""

    text: str
    key: int
    instrument: int
    plan: Plan
    first: int


@dataclass(frozen=True)
class Music(Modality):
    """Latents (FRAMES, channels).

    crops: of training. held_out: of previews, measurements and evaluations. instruments: their
    names. codec: a MusicCodec. tokenizer: of a teacher to be trained; teacher: the pipeline whose
    encoder reads the tags, for its students.
    """

    crops: tuple[Crop, ...] = ()
    held_out: tuple[Crop, ...] = ()
    instruments: tuple[str, ...] = ()
    codec: Any = None
    tokenizer: Any = None
    teacher: Loaded | None = None

    @classmethod
    def of(cls, data: Samples) -> Music:
        """The modality of a data set of music, of which a teacher is to be trained; it needs the
        decoder named before it can be."""
        from genkit.networks.text import word_tokenizer

        return cls(
            data.name,
            (FRAMES, 0),
            None,
            crops=_crops(data),
            held_out=_held_out(data),
            instruments=data.classes,
            tokenizer=word_tokenizer(text.replace(",", " ") for text in data.captions),
        )

    @classmethod
    def of_teacher(cls, data: Samples | Prompts, teacher: Loaded) -> Music:
        """The modality of a teacher and the music, or the prompts, it is distilled on."""
        pipeline, names = teacher.pipeline, tuple(teacher.pipeline.instruments)
        if isinstance(data, Prompts):
            crops = held_out = _imagined(data.prompts, pipeline)
        else:
            if tuple(data.classes) != names:
                raise ValueError(
                    f"{data.name} has the instruments {', '.join(data.classes)}, the teacher was "
                    f"trained on {', '.join(names)}"
                )
            crops = _crops(data)
            held_out = _held_out(data)
        none = pipeline.nothing(pipeline.encode_prompt(""), teacher.latent[0])
        return cls(
            data.name,
            teacher.latent,
            {name: value.cpu() for name, value in none.items()},
            kind=teacher.denoiser.kind,
            path=teacher.denoiser.path,
            time_scale=teacher.denoiser.time_scale,
            crops=crops,
            held_out=held_out,
            instruments=names,
            codec=pipeline.codec,
            teacher=teacher,
        )

    def decoded_by(self, folder: str) -> Modality:
        from genkit.networks.music_codec import open_codec
        from genkit.networks.text import tokens_of

        codec = open_codec(folder)
        none = {
            "tokens": tokens_of(self.tokenizer, [""]),
            "bpm": torch.zeros(1),
            "key": torch.tensor([len(KEYS)]),
            "instrument": torch.tensor([len(self.instruments)]),
            "plan": torch.zeros(1, FRAMES, WIDTH),
        }
        latent = (FRAMES, int(codec.config["channels"]))
        return replace(self, codec=codec, latent=latent, uncond=none)

    def _needed(self) -> Any:
        if self.codec is None:
            raise ValueError(
                f"{self.name} is learned in the latents of a codec: train one with python "
                "scripts/train_music_codec.py, and give its folder with --decoder"
            )
        return self.codec

    def asked(self, n: int) -> tuple[Crop, ...]:
        return tuple(self.held_out[i % len(self.held_out)] for i in range(n))

    def cond(self, n: int) -> dict[str, Tensor]:
        return {name: value[:] for name, value in self._read(self.asked(n)).items()}

    @property
    def preview_n(self) -> int:
        return 4

    def training_cond(self, n: int) -> dict[str, Any]:
        return self._read([self.crops[i % len(self.crops)] for i in range(n)])

    def _read(self, crops: Sequence[Crop]) -> dict[str, Any]:
        """Conditions of crops; equal texts are encoded once."""
        unique = {text: i for i, text in enumerate(dict.fromkeys(crop.text for crop in crops))}
        index = torch.tensor([unique[crop.text] for crop in crops])
        name, table = self._texts(list(unique))
        return {
            name: Gathered(table, index),
            "bpm": torch.tensor([crop.plan.bpm for crop in crops]),
            "key": torch.tensor([crop.key for crop in crops]),
            "instrument": torch.tensor([crop.instrument for crop in crops]),
            "plan": torch.stack([crop.plan.told(crop.first, FRAMES) for crop in crops]),
        }

    def _texts(self, texts: list[str]) -> tuple[str, Tensor]:
        if self.teacher is None:
            from genkit.networks.text import tokens_of

            return "tokens", tokens_of(self.tokenizer, [t.replace(",", " ") for t in texts])
        encode = self.teacher.pipeline.encode_prompt
        parts = [encode(texts[i : i + TEXTS]).cpu() for i in range(0, len(texts), TEXTS)]
        return "text", torch.cat(parts)

    def latents(self, data: Samples) -> Tensor:
        """The crops (m, FRAMES, channels) of pieces of sound, encoded whole."""
        codec, found = self._needed(), []
        for first in range(0, len(data), PART):
            rows = slice(first, first + PART)
            whole = codec.encode(data.x_0[rows].to(codec.device)).cpu()
            frames = data.cond["frames"][rows].tolist()
            found += [
                piece[start : start + FRAMES]
                for piece, length in zip(whole, frames, strict=True)
                for start in _starts(length)
            ]
        return torch.stack(found)

    def batches(self, data: Samples) -> dict[str, Any]:
        return {"x_0": self.latents(data), "cond": self._read(_crops(data))}

    def network(self) -> Any:
        from genkit.networks.music import MusicTransformer, TaggedNetwork
        from genkit.networks.text import text_encoder

        self._needed()
        frames, channels = self.latent
        network = MusicTransformer(channels, frames, self.instruments)
        return TaggedNetwork(text_encoder(len(self.tokenizer)), network)

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        if self.teacher is not None:
            from genkit.denoisers.families import rebuilt

            return rebuilt(self.teacher.pipeline, network, scheduler)
        from genkit_pipelines.music.text_to_music import MusicPipeline

        return MusicPipeline(
            self.tokenizer, network.text_encoder, network.network, scheduler, self.codec
        )

    def generate(
        self,
        pipeline: Any,
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        found = []
        for i in range(0, len(asked), TEXTS):
            rows = slice(i, i + TEXTS)
            texts = [crop.text for crop in asked[rows]]
            cond = self._read(asked[rows])
            cond.pop("tokens", None)
            told = {name: value[:] for name, value in cond.items()}
            told["text"] = pipeline.encode_prompt(texts)
            found.append(
                pipeline(
                    texts,
                    conditions={k: v.to(told["text"].device) for k, v in told.items()},
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=generators[rows],
                    output_type="latent",
                ).audios
            )
        return torch.cat(found)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latents (n, FRAMES, channels) as sound (n, samples)."""
        codec = self._needed()
        parts = [codec.decode(part.to(codec.device)).cpu() for part in latent.split(PART)]
        return torch.cat(parts).float()

    def decode_for_loss(self, latent: Tensor) -> Tensor:
        return self._needed().requires_grad_(False).to(latent.device).decode(latent)

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        """Players under spectrograms, as a piece of a page."""
        from genkit.audio import pictures
        from genkit.audio.spectra import MUSIC

        parts = []
        for name, latents in rows.items():
            sounds = self.decode(latents)
            mels = _seen(sounds)
            players = [
                pictures.player(mel, sound, f"{name} {i + 1}", MUSIC)
                for i, (mel, sound) in enumerate(zip(mels, sounds, strict=True))
            ]
            parts.append((name, players))
        file = stem.with_name(stem.name + ".html")
        file.write_text(pictures.rows(parts), encoding="utf-8")
        return file

    def picture(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        from genkit.audio import pictures

        mels = {name: list(_seen(self.decode(latents))) for name, latents in rows.items()}
        return write_lines(pictures.lines(mels), stem)

    def has_reference(self) -> bool:
        return self.teacher is not None or self.codec is not None

    def reference(self, split: str = "test") -> Reference:
        from genkit.data import load
        from genkit.metrics.music import music_reference

        real, train = load(self.name, split), load(self.name, "train")
        return music_reference(
            self.name, _sounds(real), _sounds(train), _held_out(real), self._round_trip
        )

    def _round_trip(self, sounds: Tensor) -> Tensor:
        """Sound through the codec and back: what it costs."""
        codec = self._needed()
        return torch.cat([self.decode(codec.encode(part)) for part in sounds.split(PART)])


def _seen(sounds: Tensor) -> Tensor:
    """Sounds (n, samples) as the mels (n, frames, bands) of a picture."""
    from genkit.audio.spectra import MUSIC, log_mel

    return MUSIC.normalise(log_mel(sounds, MUSIC))[:, ::2]


def _starts(frames: int) -> list[int]:
    """Where the crops of a piece of so many frames begin: every STEP, and at its end."""
    last = frames - FRAMES
    return sorted({*range(0, last + 1, STEP), last})


def _of(texts: Sequence[str], cond: Mapping[str, Tensor]) -> tuple[Crop, ...]:
    found = []
    for i, text in enumerate(texts):
        plan = plan_of(float(cond["bpm"][i]), cond["bars"][i])
        key, instrument = int(cond["key"][i]), int(cond["instrument"][i])
        starts = _starts(int(cond["frames"][i]))
        found += [Crop(text, key, instrument, plan, start) for start in starts]
    return tuple(found)


def _crops(data: Samples) -> tuple[Crop, ...]:
    """The crops of a data set, piece by piece."""
    return _of(data.captions, data.cond)


def _mixed(m: int) -> list[int]:
    """An order of m crops in which the first few are of many pieces and places."""
    order = list(range(m))
    Random(0).shuffle(order)
    return order


def _held_out(data: Samples) -> tuple[Crop, ...]:
    """The held-out crops that a data set names, else its own, in mixed order."""
    crops = _of(data.held_out, data.held_out_cond) if data.held_out else _crops(data)
    return tuple(crops[i] for i in _mixed(len(crops)))


def _sounds(data: Samples) -> Tensor:
    """The sound (m, samples) of the first MEASURED crops, in the order of `_held_out`."""
    places = [
        (piece, start)
        for piece, frames in enumerate(data.cond["frames"].tolist())
        for start in _starts(frames)
    ]
    chosen = [places[i] for i in _mixed(len(places))[:MEASURED]]
    parts = [data.x_0[i, start * HOP : (start + FRAMES) * HOP] for i, start in chosen]
    return torch.stack(parts)


def _imagined(prompts: Sequence[str], pipeline: Any) -> tuple[Crop, ...]:
    """A crop for every prompt, with keys and tempi in turn."""
    found = []
    for i, text in enumerate(prompts):
        key, bpm = 7 * i % len(KEYS), 70.0 + 37 * i % 91
        instrument = pipeline.instrument_number(None, text)
        plan = planned(key, bpm, 35.0, i)
        found.append(Crop(text, key, instrument, plan, 96 * (i % 4)))
    return tuple(found)
