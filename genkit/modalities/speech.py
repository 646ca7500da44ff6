"""Speech of a text: mels of sentences, by speakers.

A teacher trained here reads symbols, and its text encoder is trained with it; its students read
what the teacher's own frozen encoder makes of a text. It is laid over durations: those of the best
alignment for real speech, predicted ones for the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.audio import pictures
from genkit.audio.spectra import SPEECH, griffin_lim
from genkit.data.base import Prompts, Samples
from genkit.denoisers.diffusers import Loaded
from genkit.metrics.speech import frames_of
from genkit.modalities.base import Modality
from genkit.modalities.sheet import write_lines
from genkit.networks.alignment import sound_durations, spread, whole_durations
from genkit.paths import EDM
from genkit.phonemes import SYMBOLS, has_dictionary, ids, phonemes, sentences

if TYPE_CHECKING:
    from genkit.metrics import Reference

ENCODED = 64  # texts that an encoder is given at once
SILENT = ids([" "])[0]  # what stands between two words has no frames
Said = tuple[str, int]  # a text, and the number of its speaker


class Laid:
    """Rows of text (n, l, c) laid over durations (n, l): (frames, c) each, made where asked for.
    Or, with `mask`, where each of them has frames."""

    def __init__(self, text: Tensor, durations: Tensor, frames: int, mask: bool = False) -> None:
        self.text, self.durations, self.frames, self.mask = text, durations, frames, mask

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        found, mask = spread(self.text[rows], self.durations[rows], self.frames)
        return mask if self.mask else found


@dataclass(frozen=True)
class SpokenTexts(Modality):
    """Mels (frames, bands), a text and a speaker each.

    said: of training. held_out: of previews, measurements and evaluations. speakers: their names.
    dictionary: whether words are read by cmudict. decoder: a vocoder for the pipeline and the ear.
    teacher: the pipeline whose encoder reads the texts, for its students.
    """

    said: tuple[Said, ...] = ()
    held_out: tuple[Said, ...] = ()
    speakers: tuple[str, ...] = ("speaker",)
    dictionary: bool = False
    decoder: Any = None
    teacher: Loaded | None = None

    @classmethod
    def of(cls, data: Samples) -> SpokenTexts:
        """The modality of a data set of speech, of which a teacher is to be trained."""
        from genkit.networks.speech import nothing_said

        said = _said(data.captions, data.cond["speaker"])
        held_out = said
        if data.held_out:
            held_out = _said(data.held_out, data.held_out_cond["speaker"])
        frames, bands = data.x_0.shape[1:]
        return cls(
            data.name,
            (frames, bands),
            nothing_said(frames, bands),
            kind="x_0",
            path=EDM(),
            time_scale=1.0,
            said=said,
            held_out=held_out,
            speakers=data.classes,
            dictionary=has_dictionary(),
        )

    @classmethod
    def of_teacher(cls, data: Samples | Prompts, teacher: Loaded) -> SpokenTexts:
        """The modality of a teacher and the texts it is distilled on."""
        from genkit.networks.speech import nothing_said

        config = teacher.pipeline.text_encoder.config
        speakers, (frames, bands) = tuple(config["speakers"]), teacher.latent
        if isinstance(data, Prompts):
            said = tuple((text, i % len(speakers)) for i, text in enumerate(data.prompts))
            held_out = said
        else:
            if tuple(data.classes) != speakers:
                raise ValueError(
                    f"{data.name} has the speakers {', '.join(data.classes)}, the teacher was "
                    f"trained on {', '.join(speakers)}"
                )
            whole = cls.of(data)
            said, held_out = whole.said, whole.held_out
        return cls(
            data.name,
            teacher.latent,
            nothing_said(frames, bands, config["width"]),
            kind=teacher.denoiser.kind,
            path=teacher.denoiser.path,
            time_scale=teacher.denoiser.time_scale,
            said=said,
            held_out=held_out,
            speakers=speakers,
            dictionary=bool(config["dictionary"]),
            decoder=teacher.pipeline.vocoder,
            teacher=teacher,
        )

    def decoded_by(self, folder: str) -> Modality:
        from genkit.networks.vocoder import open_vocoder

        return replace(self, decoder=open_vocoder(folder))

    def asked(self, n: int) -> tuple[Said, ...]:
        return tuple(self.held_out[i % len(self.held_out)] for i in range(n))

    @property
    def preview_n(self) -> int:
        return 4

    def cond(self, n: int) -> dict[str, Tensor]:
        return {name: value[:] for name, value in self._read(self.asked(n)).items()}

    def preview_cond(self) -> dict[str, Tensor]:
        # Two sounds of each text.
        texts = self.cond(self.preview_n // 2)
        return {name: value.repeat_interleave(2, 0) for name, value in texts.items()}

    def training_cond(self, n: int) -> dict[str, Any]:
        return self._read([self.said[i % len(self.said)] for i in range(n)])

    def mask(self, cond: Mapping[str, Any]) -> Any | None:
        return cond.get("mask")

    def _symbols(self, said: Sequence[Said]) -> list[list[str]]:
        """Each text as one row of symbols, its sentences one after the other."""
        return [
            [symbol for part in sentences(text) for symbol in phonemes(part, self.dictionary)]
            for text, _ in said
        ]

    def _read(self, said: Sequence[Said]) -> dict[str, Any]:
        """Conditions of texts: symbols for a teacher to be trained, else what its encoder says."""
        who = torch.tensor([speaker for _, speaker in said])
        if self.teacher is None:
            return {"tokens": _tokens(self._symbols(said)), "speaker": who}
        _, text, durations, voice = self._encoded(said)
        return self._laid(text, whole_durations(durations), voice)

    def _laid(self, text: Tensor, durations: Tensor, voice: Tensor) -> dict[str, Any]:
        frames = self.latent[0]
        return {
            "text": Laid(text, durations, frames),
            "voice": voice,
            "mask": Laid(text, durations, frames, mask=True),
        }

    def _encoded(self, said: Sequence[Said]) -> tuple[Tensor, ...]:
        """(tokens, text, predicted durations, voices) of all texts, padded."""
        assert self.teacher is not None
        symbols, parts = self._symbols(said), []
        for first in range(0, len(said), ENCODED):
            rows = slice(first, first + ENCODED)
            who = [speaker for _, speaker in said[rows]]
            parts.append(self.teacher.pipeline.encode(symbols[rows], who))
        length = max(part[0].shape[1] for part in parts)
        tokens, text, durations, voice = (
            torch.cat(
                [_padded(part[k].cpu(), length) if k < 3 else part[k].cpu() for part in parts]
            )
            for k in range(4)
        )
        return tokens, text, durations, voice

    def batches(self, data: Samples) -> dict[str, Any]:
        frames, who = data.cond["frames"], data.cond["speaker"]
        mask = torch.arange(self.latent[0]) < frames[:, None]
        if self.teacher is None:
            cond = self._read(self.said)
            cond["durations"] = sound_durations(data.x_0, frames, cond["tokens"], who, SILENT)
            return {"x_0": data.x_0, "cond": cond, "mask": mask}
        tokens, text, _, voice = self._encoded(self.said)
        durations = sound_durations(data.x_0, frames, tokens, who, SILENT)
        return {"x_0": data.x_0, "cond": self._laid(text, durations, voice), "mask": mask}

    def network(self) -> Any:
        from genkit.networks.speech import SpeechDecoder, SpeechEncoder, SpeechNetwork

        frames, bands = self.latent
        encoder = SpeechEncoder(len(SYMBOLS), self.speakers, self.dictionary, bands, silent=SILENT)
        decoder = SpeechDecoder(bands, frames, voice_width=encoder.config["width"])
        return SpeechNetwork(encoder, decoder)

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        if self.teacher is not None:
            from genkit.denoisers.families import rebuilt

            return rebuilt(self.teacher.pipeline, network, scheduler)
        from genkit_pipelines.speech.text_to_speech import TextToSpeechPipeline

        return TextToSpeechPipeline(network.text_encoder, network.network, scheduler, self.decoder)

    def generate(
        self,
        pipeline: Any,
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        return pipeline(
            text=[text for text, _ in asked],
            speaker=[speaker for _, speaker in asked],
            num_inference_steps=steps,
            generator=generators,
            guidance_scale=guidance,
            padded_frames=self.latent[0],
            output_type="latent",
        ).audios

    def sound(self, mel: Tensor) -> Tensor:
        """Samples (n,) of a normalised mel (frames, bands)."""
        mel = mel[: int(frames_of(mel[None])[0])].float().cpu()
        if self.decoder is None:
            return griffin_lim(SPEECH.restore(mel)[None])[0]
        with torch.no_grad():
            return self.decoder.decode(mel[None])[0].float().cpu()

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        """Players under spectrograms, as a piece of a page."""
        how = "Griffin-Lim" if self.decoder is None else "the vocoder"
        parts = [
            (
                f"{name} (by {how})",
                [
                    pictures.player(mel[: int(length)], self.sound(mel), f"{name} {i + 1}")
                    for i, (mel, length) in enumerate(zip(mels, frames_of(mels), strict=True))
                ],
            )
            for name, mels in rows.items()
        ]
        file = stem.with_name(stem.name + ".html")
        file.write_text(pictures.rows(parts), encoding="utf-8")
        return file

    def picture(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        cut = {
            name: [mel[: int(n)] for mel, n in zip(mels, frames_of(mels), strict=True)]
            for name, mels in rows.items()
        }
        return write_lines(pictures.lines(cut), stem)

    def has_reference(self) -> bool:
        return bool(self.held_out) and self.held_out != self.said

    def reference(self, split: str = "test") -> Reference:
        from genkit.data import load
        from genkit.metrics.speech import speech_reference

        return speech_reference(load(self.name, split), load(self.name, "train"), self.sound)


def _said(texts: Sequence[str], speakers: Tensor) -> tuple[Said, ...]:
    return tuple(zip(texts, speakers.tolist(), strict=True))


def _tokens(symbols: Sequence[list[str]], multiple: int = 64) -> Tensor:
    """Rows of symbols as (n, l) numbers, padded with 0 to a multiple."""
    numbers = [torch.tensor(ids(each)) for each in symbols]
    length = -(-max(len(each) for each in numbers) // multiple) * multiple
    return torch.stack([_padded(each[None], length)[0] for each in numbers])


def _padded(x: Tensor, length: int) -> Tensor:
    """x (n, l, ...) with zeros up to `length`."""
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1]))
