"""Video by actions from a causal network: a world that is played frame by frame.

After Next-Frame Diffusion (arXiv 2506.01380): the past is a rolling cache of keys and values, a new
frame takes the few steps the network was trained for (a clip's first may take more), and while
nobody acts the sampler runs ahead on predicted actions. What was predicted wrongly is taken back,
so the frames are the same whatever was predicted. Frame i of a seed has noise i of that seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from genkit.denoisers.causal import CausalDenoiser, Rollout, network_denoiser
from genkit.denoisers.diffusers import read_schedule
from genkit.rng import generator as generator_of
from genkit.sampling import Generators
from genkit_pipelines.trained import TrainedPipeline

# (the actions so far) -> the one expected next.
Predict = Callable[[Sequence[int]], int]


@dataclass
class VideoPipelineOutput(BaseOutput):
    """frames: a list of clips, each a list of PIL images; or an array or tensor (n, f, ...)."""

    frames: Any


@dataclass
class Game:
    """A clip being played. actions: that led to its frames. ahead: frames drawn already, (action,
    frame), which nobody has asked for yet."""

    clip: Rollout
    seed: int
    actions: list[int] = field(default_factory=list)
    ahead: list[tuple[int, Tensor]] = field(default_factory=list)


def same_again(actions: Sequence[int]) -> int:
    """The last action once more (0 before the first): what Next-Frame Diffusion predicts."""
    return actions[-1] if actions else 0


class InteractiveVideoPipeline(TrainedPipeline):
    """Clips that follow actions.

    network: called as (frames, timesteps, actions, past, its timesteps, cache); its config gives
    in_channels, sample_size, sample_frames, num_actions and context. scheduler: holds the trained
    grid. `reset` begins a clip, `step` adds one frame to it, `rollout` several; a call makes whole
    clips of their own.
    """

    model_cpu_offload_seq = "network"
    _ahead = 8  # how many frames may be drawn ahead of the actions

    def __init__(self, network: ModelMixin, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.video_processor = VideoProcessor(vae_scale_factor=1)
        self._game: Game | None = None

    @property
    def denoiser(self) -> CausalDenoiser:
        """The network as it is evaluated, on the scheduler's path."""
        schedule = read_schedule(self.scheduler, 1)
        made = network_denoiser(self.network, schedule.path, schedule.kind, schedule.time_scale)
        assert isinstance(made, CausalDenoiser), "the network is one of frames"
        return made

    def check_actions(self, actions: Sequence[int]) -> list[int]:
        """The actions, ValueError where one of them is none, or there are none."""
        known = int(self.network.config["num_actions"])
        wrong = [a for a in actions if isinstance(a, bool) or not isinstance(a, int)]
        wrong = wrong or [a for a in actions if not 0 <= a < known]
        if wrong or not actions:
            said = f"there is no action {wrong[0]!r}" if wrong else "there are no actions"
            raise ValueError(f"{said}; give integers from 0 to {known - 1}")
        return list(actions)

    # ---- Frame by frame -----------------------------------------------------------------------

    def reset(
        self, seed: int = 0, frames: Any = None, actions: Sequence[int] | None = None
    ) -> None:
        """Begin a clip, from nothing or after given frames; the one before is forgotten.

        frames: a list of PIL images, an array (f, h, w, c) or tensor (f, c, h, w) in [0, 1], at
        least as many as the network's context. actions: that led to them; unknown by default.
        ValueError for fewer frames, or another number of actions.
        """
        clip = self.denoiser.rollout(1, slack=self._ahead + 1)
        if frames is not None:
            x, told = self._given(frames, actions, 1)
            eps = torch.cat([self._noise(seed, -1 - i)[0] for i in range(x.shape[1])], 1)
            clip.begin(x, eps, told)
        self._game = Game(clip, seed)

    def step(
        self,
        action: int,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
    ) -> Any:
        """The next frame, to which `action` leads: a PIL image, or "np", "pt", "latent" as in a
        call, (1, 1, ...). Without `reset` before, seed 0 begins. ValueError for an unknown action;
        whatever fails, the clip stays what it was, and can be gone on with."""
        self.check_call(1, output_type, ())
        self.check_actions([action])
        steps = self.trained_steps(num_inference_steps)
        if self._game is None:
            self.reset()
        assert self._game is not None, "reset makes one"
        x = self._next(self._game, action, steps)
        shown = self._shown(x, output_type)
        return shown[0][0] if output_type == "pil" else shown

    def rollout(
        self,
        actions: Sequence[int],
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        ahead: int = 0,
        predict: Predict = same_again,
    ) -> Any:
        """The next frames, one for each action, as VideoPipelineOutput. ahead: draw so many frames
        on predicted actions after each, as `run_ahead` does; the frames are the same."""
        self.check_call(1, output_type, ())
        self.check_actions(actions)
        frames = []
        for action in actions:
            frames.append(self.step(action, num_inference_steps, "latent"))
            if ahead:
                self.run_ahead(ahead, num_inference_steps, predict)
        return VideoPipelineOutput(frames=self._shown(torch.cat(frames, 1), output_type))

    def run_ahead(
        self, frames: int = 1, num_inference_steps: int | None = None, predict: Predict = same_again
    ) -> None:
        """Draw up to `frames` frames for the actions that `predict` expects, so that `step` has
        them at once if it is right; of seed 0 without `reset` before. ValueError for more than can
        be taken back."""
        if not 1 <= frames <= self._ahead:
            raise ValueError(f"{frames} frames ahead; give 1 to {self._ahead}")
        steps = self.trained_steps(num_inference_steps)
        if self._game is None:
            self.reset()
        game = self._game
        assert game is not None, "reset makes one"
        while len(game.ahead) < frames:
            drafted = [action for action, _ in game.ahead]
            action = self.check_actions([predict([*game.actions, *drafted])])[0]
            game.ahead.append((action, self._draw(game, action, steps)))

    @torch.no_grad()
    def _next(self, game: Game, action: int, steps: int) -> Tensor:
        """The next frame (1, 1, c, h, w): the one drawn ahead where its action was this one."""
        if game.ahead and game.ahead[0][0] == action:
            x = game.ahead.pop(0)[1]
        else:
            if game.ahead:
                game.clip.back(game.clip.length - len(game.ahead))
                game.ahead = []
            x = self._draw(game, action, steps)
        game.actions.append(action)
        return x

    @torch.no_grad()
    def _draw(self, game: Game, action: int, steps: int) -> Tensor:
        """The frame behind all there are, drawn ahead or not, which is then one of them."""
        number = len(game.actions) + len(game.ahead)
        eps, fresh = self._noise(game.seed, number)
        told = {"action": torch.tensor([[action]], device=eps.device)}
        x = game.clip.frame(eps, told, self.scheduler, steps, fresh)
        game.clip.write(x, eps, told)
        return x

    def _noise(self, seed: int, number: int) -> tuple[Tensor, torch.Generator]:
        """(the unit noise (1, 1, c, h, w) of a frame, the generator of what it needs besides)."""
        config = self.network.config
        drawn = generator_of(seed, "frame", number)
        size = config["sample_size"]
        eps = torch.randn((1, 1, config["in_channels"], size, size), generator=drawn)
        return eps.to(self._execution_device, self.network.dtype), drawn

    def _given(self, frames: Any, actions: Any, many: int) -> tuple[Tensor, dict[str, Tensor]]:
        """(frames (many, f, c, h, w) in [-1, 1], their conditions), of one clip or so many."""
        config = self.network.config
        size, context = config["sample_size"], config["context"]
        least = f"give at least the {context} that a frame sees"
        if not len(frames):
            raise ValueError(f"the clip has no frames; {least}")
        read: Any = self.video_processor.preprocess_video(frames, height=size, width=size)
        x = read.transpose(1, 2).to(self._execution_device, self.network.dtype)
        clips, length = x.shape[:2]
        if clips not in (1, many):
            raise ValueError(f"{clips} clips are given for {many}; give one, or one for each")
        if length < context:
            raise ValueError(f"the clip has {length} frames; {least}")
        strings = [[int(config["num_actions"])] * length]
        if actions is not None:
            strings = self._strings(actions)
            if len(strings[0]) != length or len(strings) not in (1, many):
                raise ValueError(
                    f"{len(strings[0])} actions for {length} frames; give one for each frame, of "
                    "one clip or of every clip"
                )
        told = torch.tensor(strings, device=x.device).expand(many, -1)
        return x.expand(many, -1, -1, -1, -1), {"action": told}

    def _strings(self, actions: Any) -> list[list[int]]:
        """Strings of actions, equally long, of one or several."""
        several: Any = actions if actions and isinstance(actions[0], Sequence) else [actions]
        strings = [self.check_actions(each) for each in several]
        if len({len(each) for each in strings}) > 1:
            raise ValueError("the strings of actions are of several lengths; give equal ones")
        return strings

    # ---- Whole clips --------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        actions: Sequence[int] | Sequence[Sequence[int]],
        num_inference_steps: int | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        frames: Any = None,
        frame_actions: Sequence[int] | Sequence[Sequence[int]] | None = None,
    ) -> Any:
        """A clip for each string of actions (all equally long), or for the only one.

        frames: what the clips go on from, which is no part of the result: a clip as `reset` takes
        it, for all, or (n, f, ...), one for each. frame_actions: that led to them.
        num_inference_steps: of a frame, but for the first of a clip, which takes the scheduler's
        `opening` where that is more; None means as trained. num_images_per_prompt: clips for each
        string. generator: one, or a list with one per clip, which makes a clip independent of the
        others. latents: unit noise (n, f, channels, size, size). output_type: "pil", "np" (n,
        f, h, w, c) and "pt" (n, f, c, h, w) in [0, 1], or "latent", the network's own output in
        [-1, 1]. Returns VideoPipelineOutput, or a tuple. A clip being played is not touched.
        ValueError for an unknown action, strings of several lengths, and as other pipelines' calls.
        """
        self.check_call(num_images_per_prompt, output_type, ())
        steps = self.trained_steps(num_inference_steps)
        told = torch.tensor(self._strings(actions), device=self._execution_device)
        told = told.repeat_interleave(num_images_per_prompt, 0)
        config = self.network.config
        size = config["sample_size"]
        shape = (*told.shape, config["in_channels"], size, size)
        noise = self.start(shape, generator, latents, told.device, self.network.dtype)
        denoiser, clips = self.denoiser, None
        if frames is not None:
            x, led = self._given(frames, frame_actions, len(noise))
            clips = denoiser.rollout(len(noise))
            clips.begin(x, self.start(x.shape, generator, None, x.device, x.dtype), led)
        cond = {"action": told}
        x = denoiser.sample(noise, cond, self.scheduler, steps, generator, clips=clips)
        shown = self._shown(x, output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=shown) if return_dict else (shown,)

    def _shown(self, x: Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return x
        return self.video_processor.postprocess_video(x.transpose(1, 2), output_type=output_type)
