"""Text to speech after CoMoSpeech (arXiv 2305.06908): one or few steps, exact lengths, streamed.

A text is cut into sentences, their sounds are given durations, and a decoder makes mels of them,
sentence by sentence; a vocoder makes samples in windows. Texts of one call are decoded in batches
of equal padded length, so that what one of them becomes does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from torch.nn import functional as F

from genkit.audio.spectra import SPEECH, griffin_lim
from genkit.denoisers.calls import speech
from genkit.networks.alignment import spread, whole_durations
from genkit.networks.speech import nothing_said
from genkit.phonemes import ids, phonemes, sentences
from genkit.sampling import Generators
from genkit_pipelines.audio_output import AudioChunk, AudioOutput, Span
from genkit_pipelines.trained import AfterStep, TrainedPipeline, tensor_inputs
from genkit_pipelines.windows import chunks, windows

OUTPUTS = ("pt", "np", "latent")
LONGEST = 600.0  # seconds of audio_end_in_s
MOST_SYMBOLS = 300  # of a piece; longer sentences are cut at a pause or between words
TOKENS, FRAMES = 64, 64  # pieces are padded to a multiple of these
SLOWEST, FASTEST = 0.25, 4.0


@dataclass
class Piece:
    """A sentence, ready to be decoded: symbols (l), text (l, c) as the encoder reads it, durations
    (l,) in frames, voice (width,)."""

    symbols: list[str]
    text: Tensor
    durations: Tensor
    voice: Tensor

    @property
    def frames(self) -> int:
        return int(self.durations.sum())


class TextToSpeechPipeline(TrainedPipeline):
    """Speech of a text, by any scheduler that its network was trained for.

    text_encoder: a SpeechEncoder, whose config knows the speakers. network: a SpeechDecoder.
    vocoder: a Vocoder; without one samples are made by Griffin-Lim, which sounds worse.
    """

    model_cpu_offload_seq = "text_encoder->network->vocoder"
    _optional_components = ["vocoder"]

    def __init__(
        self,
        text_encoder: ModelMixin,
        network: ModelMixin,
        scheduler: SchedulerMixin,
        vocoder: ModelMixin | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            text_encoder=text_encoder, network=network, scheduler=scheduler, vocoder=vocoder
        )

    @property
    def sample_rate(self) -> int:
        """Of what comes out, in Hz."""
        return SPEECH.sample_rate

    @property
    def speakers(self) -> list[str]:
        """The names of the voices."""
        return list(self.text_encoder.config["speakers"])

    def speaker_number(self, speaker: str | int | None) -> int:
        """The number of a speaker, the first by default. ValueError for one there is not."""
        names = self.speakers
        if speaker is None:
            return 0
        if isinstance(speaker, int) and not isinstance(speaker, bool) and 0 <= speaker < len(names):
            return speaker
        if speaker in names:
            return names.index(str(speaker))
        raise ValueError(f"there is no speaker {speaker!r}; there are: {', '.join(names)}")

    def symbols(self, text: str) -> list[list[str]]:
        """A text as the symbols of its pieces. ValueError for what cannot be read."""
        told = bool(self.text_encoder.config["dictionary"])
        return [part for each in sentences(text) for part in _cut(phonemes(each, told))]

    @torch.no_grad()
    def encode(
        self, symbols: Sequence[list[str]], speakers: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pieces as (tokens (b, l), text (b, l, c), durations (b, l), voices (b, width)), l a
        multiple of TOKENS."""
        numbers = [torch.tensor(ids(each)) for each in symbols]
        length = -(-max(len(each) for each in numbers) // TOKENS) * TOKENS
        tokens = torch.stack([F.pad(each, (0, length - len(each))) for each in numbers])
        tokens = tokens.to(self._execution_device)
        who = torch.tensor(list(speakers), device=tokens.device)
        return (tokens, *self.text_encoder(tokens, who))

    def _plans(
        self, texts: Sequence[str], speakers: Sequence[int], speed: float, seconds: float | None
    ) -> list[list[Piece]]:
        """The pieces of every text, with their durations."""
        pieces = [self.symbols(text) for text in texts]
        flat = [part for each in pieces for part in each]
        who = [speaker for each, speaker in zip(pieces, speakers, strict=True) for _ in each]
        _, read, durations, voices = self.encode(flat, who)
        found, place = [], 0
        for parts in pieces:
            rows = slice(place, place + len(parts))
            place += len(parts)
            wanted = durations[rows].double() / speed
            # One line over all pieces, so that rounding adds up over the whole text.
            line, total = wanted.reshape(1, -1), None
            if seconds is not None:
                total = line.new_tensor([-(-round(seconds * self.sample_rate) // SPEECH.hop)])
            whole = whole_durations(line, total).reshape(wanted.shape)
            found.append(
                [
                    Piece(part, read[i], whole[i - rows.start], voices[i])
                    for part, i in zip(parts, range(rows.start, rows.stop), strict=True)
                ]
            )
        return found

    def _decoded(
        self, pieces: list[Piece], padded: int, latents: Tensor | None, run: dict[str, Any]
    ) -> list[Tensor]:
        """The mels (frames, bands) of pieces that are padded to one length."""
        text, mask = spread(
            torch.stack([F.pad(p.text, (0, 0, 0, _longest(pieces) - len(p.text))) for p in pieces]),
            torch.stack([F.pad(p.durations, (0, _longest(pieces) - len(p.text))) for p in pieces]),
            padded,
        )
        cond = {"text": text, "voice": torch.stack([p.voice for p in pieces]), "mask": mask}
        bands = self.network.config["in_channels"]
        shape = (len(pieces), padded, bands)
        noise = self.start(shape, run["generator"], latents, text.device, text.dtype)
        self._guidance_scale = run["guidance"]  # a stream's own, whatever was called meanwhile
        uncond = None
        if self._guidance_scale != 1:
            nothing = nothing_said(padded, bands, self.text_encoder.config["width"])
            uncond = {name: value.to(text) for name, value in nothing.items()}
        x = self.run_sampler(
            self.guided(partial(speech, self.network), cond, uncond),
            noise,
            run["steps"],
            run["generator"],
            run["callback"],
            run["wanted"],
        )
        return [row[: piece.frames] for row, piece in zip(x, pieces, strict=True)]

    def _rounds(
        self, plans: list[list[Piece]], padded: int | None, latents: Tensor | None, run: dict
    ) -> Iterator[dict[int, Tensor]]:
        """{text: mel} of the first piece of every text, then of the second, and so on."""
        generator = run["generator"]
        for k in range(max(len(plan) for plan in plans)):
            groups: dict[int, list[int]] = {}
            for i, plan in enumerate(plans):
                if k < len(plan) and plan[k].frames:
                    size = padded or -(-plan[k].frames // FRAMES) * FRAMES
                    groups.setdefault(size, []).append(i)
            found = {}
            for size, rows in groups.items():
                many = isinstance(generator, Sequence)
                own = [generator[i] for i in rows] if many else generator
                given = None if latents is None else latents[rows]
                pieces = [plans[i][k] for i in rows]
                mels = self._decoded(pieces, size, given, run | {"generator": own})
                found |= dict(zip(rows, mels, strict=True))
            yield found

    def _sounds(self, mels: list[list[Tensor]], seconds: float | None) -> tuple[Tensor, Tensor]:
        """(samples (n, 1, longest), their numbers (n,)) of texts' mels."""
        sounds = [torch.cat(list(_sound(self.vocoder, each))) for each in mels]
        if seconds is not None:
            sounds = [each[: round(seconds * self.sample_rate)] for each in sounds]
        made, lengths = _stacked([each[:, None] for each in sounds])
        return made.transpose(1, 2), lengths

    def _check(
        self, text: Any, speed: float, seconds: float | None, many: int, output_type: str
    ) -> list[str]:
        """The texts of a call; ValueError for what it cannot use."""
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"text is {text!r}; give a string or a list of strings")
        if not SLOWEST <= speed <= FASTEST:
            raise ValueError(f"speed is {speed}; give one from {SLOWEST} to {FASTEST}")
        if seconds is not None and not 1 / self.sample_rate <= seconds <= LONGEST:
            raise ValueError(
                f"audio_end_in_s is {seconds}; give more than 0 and at most {LONGEST:g} seconds"
            )
        if many < 1:
            raise ValueError(f"num_waveforms_per_prompt is {many}; give at least 1")
        if output_type not in OUTPUTS:
            raise ValueError(f"unknown output_type {output_type!r}; choose {', '.join(OUTPUTS)}")
        return texts

    def _speaker_numbers(self, speaker: Any, texts: list[str]) -> list[int]:
        each = list(speaker) if isinstance(speaker, (list, tuple)) else [speaker] * len(texts)
        if len(each) != len(texts):
            raise ValueError(f"{len(each)} speakers for {len(texts)} texts; give one, or one each")
        return [self.speaker_number(one) for one in each]

    def _latents(
        self, plans: list[list[Piece]], latents: Tensor | None, padded: int | None
    ) -> int | None:
        """The frames that pieces are padded to, where latents or the caller say it."""
        if latents is None and padded is None:
            return None
        frames = padded or latents.shape[1]  # type: ignore[union-attr]
        if latents is not None and any(len(plan) > 1 for plan in plans):
            raise ValueError("latents are for texts of one sentence; give a generator instead")
        for plan in plans:
            for piece in plan:
                # As in training: what lies beyond is cut.
                over = (piece.durations.cumsum(0) - frames).clamp(min=0)
                piece.durations = torch.diff(
                    piece.durations.cumsum(0) - over, prepend=over.new_zeros(1)
                )
        return frames

    @torch.no_grad()
    def __call__(
        self,
        text: str | list[str],
        speaker: str | int | list[str | int] | None = None,
        speed: float = 1.0,
        audio_end_in_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        padded_frames: int | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
        callback_on_step_end: AfterStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Speech of each text, mono, at `sample_rate`.

        speaker: a name or number, one for all or one each. speed: 2 is twice as fast.
        audio_end_in_s: the length, exact to a sample; durations are stretched to it.
        num_inference_steps, guidance_scale: None means as trained, 1 is off. generator: one, or
        one per waveform, which makes a waveform independent of the others. latents: unit noise
        (n, frames, bands), for texts of one sentence. padded_frames: pad every piece to so many
        frames and cut it there, as in training. output_type: "pt" or "np" (n, 1, samples), or
        "latent", normalised mels (n, frames, bands), zero beyond a sound's end. Returns
        AudioOutput, or a tuple. ValueError, in one sentence, for what cannot be said.
        """
        wanted = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        texts = self._check(text, speed, audio_end_in_s, num_waveforms_per_prompt, output_type)
        who = self._speaker_numbers(speaker, texts)
        texts = [each for each in texts for _ in range(num_waveforms_per_prompt)]
        if isinstance(generator, Sequence) and len(generator) != len(texts):
            raise ValueError(f"{len(generator)} generators for {len(texts)} waveforms; one or each")
        who = [each for each in who for _ in range(num_waveforms_per_prompt)]
        plans = self._plans(texts, who, speed, audio_end_in_s)
        padded = self._latents(plans, latents, padded_frames)
        run = {
            "steps": self.trained_steps(num_inference_steps),
            "guidance": self.trained_guidance(guidance_scale),
            "generator": generator,
            "callback": callback_on_step_end,
            "wanted": wanted,
        }
        mels: list[list[Tensor]] = [[] for _ in texts]
        for found in self._rounds(plans, padded, latents, run):
            for i, mel in found.items():
                mels[i].append(mel)
        if output_type == "latent":
            made, lengths = _stacked([torch.cat(each) for each in mels], padded or 0)
        else:
            made, lengths = self._sounds(mels, audio_end_in_s)
        self.maybe_free_model_hooks()
        audios: Any = made.cpu().numpy() if output_type == "np" else made
        if not return_dict:
            return (audios,)
        return AudioOutput(audios, self.sample_rate, lengths, [_alignment(plan) for plan in plans])

    @torch.no_grad()
    def stream(
        self,
        text: str,
        speaker: str | int | None = None,
        speed: float = 1.0,
        audio_end_in_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        chunk_in_s: float = 0.5,
    ) -> Iterator[AudioChunk]:
        """The same speech in chunks of at least chunk_in_s, the first as soon as it is made.

        Together they are, bit for bit, what a call of the same arguments returns. A stream that is
        left early, or breaks, leaves the pipeline as it was.
        """
        if not 0 < chunk_in_s <= LONGEST:
            raise ValueError(f"chunk_in_s is {chunk_in_s}; give more than 0 seconds")
        texts = self._check(text, speed, audio_end_in_s, 1, "pt")
        plans = self._plans(texts, [self.speaker_number(speaker)], speed, audio_end_in_s)
        run = {"steps": self.trained_steps(num_inference_steps), "generator": generator}
        run |= {"guidance": self.trained_guidance(guidance_scale), "callback": None, "wanted": ()}
        mels = (mel for found in self._rounds(plans, None, None, run) for mel in found.values())
        left = sum(piece.frames for piece in plans[0]) * SPEECH.hop
        if audio_end_in_s is not None:
            left = min(left, round(audio_end_in_s * self.sample_rate))
        yield from chunks(_sound(self.vocoder, mels), left, self.sample_rate, chunk_in_s)


def _cut(symbols: list[str]) -> list[list[str]]:
    """A sentence's symbols in pieces of at most MOST_SYMBOLS, cut at pauses, else between words."""
    if len(symbols) <= MOST_SYMBOLS:
        return [symbols]
    reach = symbols[:MOST_SYMBOLS]
    places = [
        i for mark in (",", " ") for i in range(len(reach) // 2, len(reach)) if reach[i] == mark
    ]
    place = places[-1] if places else MOST_SYMBOLS - 1
    if "," in reach[len(reach) // 2 :]:
        place = max(i for i in range(len(reach)) if reach[i] == ",")
    return [[*symbols[:place], ","], *_cut([",", *symbols[place + 1 :]])]


def _sound(vocoder: Any | None, mels: Iterable[Tensor]) -> Iterator[Tensor]:
    """Samples of one clip in windows; without a vocoder all at the end, by Griffin-Lim."""
    if vocoder is not None:
        yield from windows(vocoder, mels)
        return
    whole = torch.cat(list(mels))
    yield griffin_lim(SPEECH.restore(whole.float().cpu())[None])[0]


def _longest(pieces: list[Piece]) -> int:
    return max(len(piece.text) for piece in pieces)


def _stacked(parts: list[Tensor], least: int = 0) -> tuple[Tensor, Tensor]:
    """(parts (n, c) of different n in one tensor, with zeros behind them; their n)."""
    longest = max(least, *(len(each) for each in parts))
    padded = [F.pad(each, (0, 0, 0, longest - len(each))) for each in parts]
    return torch.stack(padded), torch.tensor([len(each) for each in parts])


def _alignment(pieces: list[Piece]) -> list[Span]:
    """What is said when, in seconds."""
    found, frame = [], 0
    for piece in pieces:
        for symbol, length in zip(piece.symbols, piece.durations.tolist(), strict=False):
            begin, frame = frame, frame + length
            second = SPEECH.hop / SPEECH.sample_rate
            found.append((symbol, begin * second, frame * second))
    return found
