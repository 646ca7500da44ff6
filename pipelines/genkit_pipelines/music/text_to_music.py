"""Text to music by any network on any Path: few steps, exact lengths to 4 min 45 s, streamed.

A call makes a plan (tempo, a chord and a section for every bar), which every frame of the network
is told of, so that a piece of minutes keeps its time, key and form; then latents of the whole
piece, by the scheduler; then samples of them, window by window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from genkit.denoisers.calls import music
from genkit.harmony import CHORDS, KEYS, Plan, check_bpm, following, key_number, planned
from genkit.networks.text import tokens_of
from genkit.sampling import Generators
from genkit_pipelines.audio_output import AudioChunk, AudioOutput, Span
from genkit_pipelines.trained import AfterStep, TrainedPipeline, tensor_inputs
from genkit_pipelines.windows import chunks, windows

OUTPUTS = ("pt", "np", "latent")
LONGEST = 285.0  # seconds: 4 minutes 45
BPM, KEY, SECONDS = 120.0, "C major", 30.0  # where a call names none


class MusicPipeline(TrainedPipeline):
    """Music of what a prompt says, by any scheduler that its network was trained for.

    text_encoder: reads the tags; its hidden states condition the network. network: a
    MusicTransformer, whose config knows the instruments. codec: a MusicCodec.
    """

    model_cpu_offload_seq = "text_encoder->network->codec"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        network: ModelMixin,
        scheduler: SchedulerMixin,
        codec: ModelMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            network=network,
            scheduler=scheduler,
            codec=codec,
        )

    @property
    def sample_rate(self) -> int:
        """Of what comes out, in Hz."""
        return self.codec.sample_rate

    @property
    def instruments(self) -> list[str]:
        """The lead instruments that can be asked for."""
        return list(self.network.config["instruments"])

    def encode_prompt(self, prompt: str | Sequence[str]) -> Tensor:
        """(n, l, width) embeddings of one prompt or of several, whose words may be parted by
        commas."""
        given = [prompt] if isinstance(prompt, str) else list(prompt)
        words = [text.replace(",", " ") for text in given]
        tokens = tokens_of(self.tokenizer, words).to(self._execution_device)
        with torch.no_grad():
            return self.text_encoder(input_ids=tokens).last_hidden_state

    def instrument_number(self, instrument: str | None, prompt: str) -> int:
        """The number of an instrument: the named one, else the first that the prompt has a word
        of, else the one that means none. ValueError for one there is not."""
        names = self.instruments
        if instrument is None:
            said = prompt.lower().replace(",", " ").split()
            return next((names.index(word) for word in said if word in names), len(names))
        if instrument not in names:
            raise ValueError(f"there is no instrument {instrument!r}; there are {', '.join(names)}")
        return names.index(instrument)

    def conditions(
        self,
        text: Tensor,
        plans: Sequence[Plan],
        keys: Sequence[int],
        instruments: Sequence[int],
        first: int = 0,
        frames: int = 1,
    ) -> dict[str, Tensor]:
        """What the network is told of frames first, first + 1, ... of the planned pieces."""
        told = {
            "text": text,
            "bpm": torch.tensor([plan.bpm for plan in plans]),
            "key": torch.tensor(list(keys)),
            "instrument": torch.tensor(list(instruments)),
            "plan": torch.stack([plan.told(first, frames) for plan in plans]),
        }
        return {name: value.to(text.device) for name, value in told.items()}

    def nothing(self, text: Tensor, frames: int) -> dict[str, Tensor]:
        """The conditions of no condition, batch 1, but for the text (1, l, width)."""
        absent = Plan(0.0, (), ())
        known = len(self.network.config["instruments"])
        return self.conditions(text, [absent], [len(KEYS)], [known], 0, frames)

    def _plans(
        self, n: int, bpm: float, key: str, chords: list[str] | None, seconds: float, given: Any
    ) -> list[Plan]:
        """A plan for each piece; progressions that nobody names are chosen by the seed of its
        generator, which is not advanced."""
        if chords is not None:
            if not isinstance(chords, list) or not chords:
                raise ValueError(f'chords is {chords!r}; give a list such as ["C", "Am"]')
            return [following(chords, bpm, seconds)] * n
        every = given if isinstance(given, Sequence) else [given] * n
        seeds = [0 if each is None else each.initial_seed() for each in every]
        return [
            planned(key_number(key), bpm, seconds, Random(seed).getrandbits(31)) for seed in seeds
        ]

    def _check(self, prompt: Any, seconds: float, many: int, output_type: str) -> list[str]:
        """The prompts of a call; ValueError for what it cannot use."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        listed = isinstance(prompts, list) and prompts
        if not listed or not all(isinstance(each, str) for each in prompts):
            raise ValueError(f"prompt is {prompt!r}; give a string or a list of strings")
        if not isinstance(seconds, (int, float)) or not 1 / self.sample_rate <= seconds <= LONGEST:
            raise ValueError(
                f"audio_end_in_s is {seconds}; give more than 0 and at most {LONGEST:g} seconds"
            )
        if many < 1:
            raise ValueError(f"num_waveforms_per_prompt is {many}; give at least 1")
        if output_type not in OUTPUTS:
            raise ValueError(f"unknown output_type {output_type!r}; choose {', '.join(OUTPUTS)}")
        return prompts

    def _made(
        self,
        cond: dict[str, Tensor],
        negative: str | None,
        latents: Tensor | None,
        run: dict[str, Any],
    ) -> Tensor:
        """Latents (n, frames, channels) of the conditions."""
        plan = cond["plan"]
        uncond = None
        if self._guidance_scale != 1:
            uncond = self.nothing(self.encode_prompt(negative or ""), plan.shape[1])
        shape = (*plan.shape[:2], self.network.config["in_channels"])
        dtype, generator = cond["text"].dtype, run["generator"]
        noise = self.start(shape, generator, latents, plan.device, dtype)
        evaluate = self.guided(partial(music, self.network), cond, uncond)
        return self.run_sampler(
            evaluate, noise, run["steps"], generator, run["callback"], run["wanted"]
        )

    def _sound(self, latents: Tensor) -> Tensor:
        """Latents (n, frames, channels) as samples (n, 1, frames samples_per_frame)."""
        each = [torch.cat(list(windows(self.codec, [piece]))) for piece in latents]
        return torch.stack(each)[:, None]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] = "",
        negative_prompt: str | None = None,
        bpm: float = BPM,
        key: str = KEY,
        instrument: str | None = None,
        chords: list[str] | None = None,
        audio_end_in_s: float = SECONDS,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        conditions: dict[str, Tensor] | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
        callback_on_step_end: AfterStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Music for each prompt of tags, mono, at `sample_rate`.

        bpm: beats per minute. key: such as "A minor". instrument: of `instruments`, the lead; by
        default the first that the prompt names. chords: a name for each bar, again and again; by
        default progressions of the key, chosen by the generator's seed. audio_end_in_s: the length,
        exact to a sample, up to 285 s. num_inference_steps, guidance_scale: None means as trained,
        1 is off. generator: one, or one per waveform, which makes a waveform independent of the
        others. latents: unit noise (n, frames, channels). conditions: of `conditions`, instead of
        all that is named before. output_type: "pt" or "np" (n, 1, samples), or "latent",
        (n, frames, channels). Returns AudioOutput, whose alignment has the chords, or a tuple.
        ValueError, in one sentence, for what cannot be played.
        """
        wanted = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        prompts = self._check(prompt, audio_end_in_s, num_waveforms_per_prompt, output_type)
        self._guidance_scale = self.trained_guidance(guidance_scale)
        prompts = [each for each in prompts for _ in range(num_waveforms_per_prompt)]
        run = {
            "steps": self.trained_steps(num_inference_steps),
            "generator": generator,
            "callback": callback_on_step_end,
            "wanted": wanted,
        }
        plans, samples = None, round(audio_end_in_s * self.sample_rate)
        if conditions is None:
            conditions, plans = self._asked(
                prompts, bpm, key, instrument, chords, audio_end_in_s, generator
            )
        else:
            samples = conditions["plan"].shape[1] * self.codec.samples_per_frame
        made = self._made(conditions, negative_prompt, latents, run)
        if output_type != "latent":
            made = self._sound(made)[..., :samples]
        self.maybe_free_model_hooks()
        audios: Any = made.cpu().numpy() if output_type == "np" else made
        if not return_dict:
            return (audios,)
        lengths = torch.full((len(made),), samples)
        told = None if plans is None else [_alignment(plan) for plan in plans]
        return AudioOutput(audios, self.sample_rate, lengths, told)

    def _asked(
        self,
        prompts: list[str],
        bpm: float,
        key: str,
        instrument: str | None,
        chords: list[str] | None,
        seconds: float,
        generator: Generators,
    ) -> tuple[dict[str, Tensor], list[Plan]]:
        """(conditions of a call's own terms, the plans of its pieces)."""
        number, n = key_number(key), len(prompts)
        if isinstance(generator, Sequence) and len(generator) != n:
            raise ValueError(f"{len(generator)} generators for {n} waveforms; give one or each")
        played = [self.instrument_number(instrument, each) for each in prompts]
        plans = self._plans(n, check_bpm(bpm), key, chords, seconds, generator)
        frames = -(-round(seconds * self.sample_rate) // self.codec.samples_per_frame)
        text = self.encode_prompt(prompts)
        return self.conditions(text, plans, [number] * n, played, 0, frames), plans

    @torch.no_grad()
    def stream(
        self,
        prompt: str = "",
        negative_prompt: str | None = None,
        bpm: float = BPM,
        key: str = KEY,
        instrument: str | None = None,
        chords: list[str] | None = None,
        audio_end_in_s: float = SECONDS,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        chunk_in_s: float = 0.5,
    ) -> Iterator[AudioChunk]:
        """The same music in chunks of at least chunk_in_s: latents of the whole piece first, then
        its samples as they are decoded.

        Together they are, bit for bit, what a call of the same arguments returns. A stream that is
        left early, or breaks, leaves the pipeline as it was.
        """
        if not 0 < chunk_in_s <= LONGEST:
            raise ValueError(f"chunk_in_s is {chunk_in_s}; give more than 0 seconds")
        prompts = self._check(prompt, audio_end_in_s, 1, "pt")
        self._guidance_scale = self.trained_guidance(guidance_scale)
        run = {"steps": self.trained_steps(num_inference_steps), "generator": generator}
        run |= {"callback": None, "wanted": ()}
        cond, _ = self._asked(prompts, bpm, key, instrument, chords, audio_end_in_s, generator)
        latents = self._made(cond, negative_prompt, None, run)
        samples, made = round(audio_end_in_s * self.sample_rate), windows(self.codec, [latents[0]])
        yield from chunks(made, samples, self.sample_rate, chunk_in_s)


def _alignment(plan: Plan) -> list[Span]:
    """What chord sounds when, in seconds."""
    return [
        (CHORDS[chord], i * plan.bar_in_s, (i + 1) * plan.bar_in_s)
        for i, chord in enumerate(plan.chords)
    ]
