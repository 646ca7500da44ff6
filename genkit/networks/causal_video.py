"""A causal transformer of frames, each with its own noise level and action.

After Next-Frame Diffusion (arXiv 2506.01380), from its abstract and project page, as no code is
out: attention is bidirectional within a frame and causal over frames, noise levels are drawn frame
by frame (diffusion forcing, arXiv 2407.01392), an action enters with its frame's level by adaptive
layer norm (arXiv 2212.09748; one projection for all blocks, as in arXiv 2310.00426). Not from
there: a frame sees the last `context` frames only, so that a roll-out has no end; frames, rows and
columns are told apart by rotary positions (arXiv 2104.09864), of which only differences count; and
frames are pixels, 64 patches, without an autoencoder. Queries and keys are normalised. Where
gradients are wanted attention is plain products, which have a forward derivative too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.networks.frame_cache import FrameCache

# (query, key, value) (b, heads, tokens, d) -> the values that are seen, of query's shape.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# Frames, and patches, of which the slowest rotation is a radian.
PERIOD, REACH = 100.0, 10.0


@lru_cache(maxsize=32)
def frame_mask(frames: int, past: int, context: int) -> Tensor:
    """Which frames see which, (queries, keys) bool: `frames` new ones behind `past` ones; each sees
    itself and the last `context` before it."""
    key = torch.arange(past + frames)
    query = key[past:]
    return (key <= query[:, None]) & (key >= query[:, None] - context)


def attend_by_frame(
    query: Tensor, key: Tensor, value: Tensor, frames: int, context: int, forced: bool
) -> Tensor:
    """Attention (b, heads, tokens, d) of a clip's frames: each sees itself and the last `context`
    before it.

    forced: clean copies of the frames stand before them; a copy sees copies as above, a frame
    itself and the copies of those before it. Frame by frame nothing is computed that a mask would
    throw away: on a processor a third of one masked attention's time.
    """
    parts = (
        each.unflatten(2, (frames * (1 + forced), -1)).unbind(2) for each in (query, key, value)
    )
    queries, keys, values = parts
    found = []
    for i, each in enumerate(queries):
        place = i % frames
        first = max(0, place - context)
        seen = (torch.cat([*side[first:place], side[i]], 2) for side in (keys, values))
        found.append(_attention(each, *seen))
    return torch.cat(found, 2)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention without a mask: plain products where gradients are wanted, whose backward pass
    takes half of the fused one's time for so few tokens, as `quicken_training` has it.
    """
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return score.softmax(-1).to(value.dtype) @ value


def rotation(first: int, frames: int, grid: int, width: int) -> tuple[Tensor, Tensor]:
    """(cos, sin) (frames grid^2, width / 2) of the tokens of the frames from number `first` on,
    angles in float64: half of them tell frames, a quarter each rows and columns of patches."""
    side = torch.arange(grid)
    places = torch.cartesian_prod(torch.arange(first, first + frames), side, side).double()
    parts = []
    for axis, (count, period) in enumerate(
        ((width // 4, PERIOD), (width // 8, REACH), (width // 8, REACH))
    ):
        rate = period ** -(torch.arange(count, dtype=torch.float64) / count)
        parts.append(places[:, axis, None] * rate)
    angle = torch.cat(parts, 1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (b, heads, tokens, d) turned by (tokens, d / 2) angles."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def normalise(x: Tensor, scale: Tensor) -> Tensor:
    """Root mean square norm over features."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.qkv = nn.Linear(width, 3 * width)
        self.scale = nn.Parameter(torch.ones(2, width // heads))
        self.out = nn.Linear(width, width)
        self.enter = nn.Linear(width, 4 * width)
        self.leave = nn.Linear(4 * width, width)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        turn: tuple[Tensor, Tensor],
        attend: Attend,
    ) -> Tensor:
        """x (b, f tokens, width), condition (b, f, 6, width)."""
        parts = (condition + self.table)[..., None, :].unbind(2)
        shift, scale, gate, shift_2, scale_2, gate_2 = parts
        x = x.unflatten(1, (condition.shape[1], -1))
        y = self.norm(x) * (1 + scale) + shift
        x = x + gate * self.out(self._attend(y, turn, attend))
        y = self.norm(x) * (1 + scale_2) + shift_2
        return (x + gate_2 * self.leave(F.gelu(self.enter(y)))).flatten(1, 2)

    def _attend(self, y: Tensor, turn: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        batch, _, _, width = y.shape
        split = self.qkv(y).view(batch, -1, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        query, key = (
            rotate(normalise(each, scale), *turn)
            for each, scale in zip((query, key), self.scale, strict=True)
        )
        out = attend(query, key, value)
        return out.transpose(1, 2).reshape(y.shape)


class CausalVideoTransformer(ModelMixin, ConfigMixin):
    """(b, f, channels, size, size) -> the same shape; action `num_actions` means no action.

    sample_frames: frames of a training clip. context: past frames that a frame sees.
    context_noise: the noise level, on the path's clock from 0 to 1, at which a past frame is seen,
    so that small errors of a roll-out drown in it.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        sample_size: int = 64,
        sample_frames: int = 10,
        num_actions: int = 5,
        patch: int = 8,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        context: int = 8,
        context_noise: float = 0.2,
    ) -> None:
        super().__init__()
        self.grid, features = sample_size // patch, in_channels * patch**2
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.action = nn.Embedding(num_actions + 1, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.enter = nn.Linear(features, width)
        self.place = nn.Parameter(torch.randn(self.grid**2, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, features)
        nn.init.normal_(self.action.weight, std=0.5)
        for zero in (self.modulation, self.last, self.leave):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def cache(self, batch: int, slack: int = 0) -> FrameCache:
        """An empty past of `batch` clips, of whose frames `slack` may be taken back."""
        config, weight = self.config, self.enter.weight
        shape = (batch, config["heads"], config["width"] // config["heads"])
        size = self.grid**2
        return FrameCache(
            config["depth"], shape, size, config["context"], slack, weight.dtype, weight.device
        )

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        action: Tensor,
        past: Tensor | None = None,
        past_timestep: Tensor | None = None,
        cache: FrameCache | None = None,
    ) -> Tensor:
        """The output for frames (b, f, c, h, w) at timesteps (b, f) in 0..1000, led to by actions
        (b, f) int64.

        past (b, f, c, h, w), past_timestep (b, f): what the later frames see of these frames, in
        place of these frames themselves; frame i sees past frames before i. cache: the frames
        before these; it is left as it is, so that nothing is kept (`write` does that).
        """
        assert past is None or cache is None, "past and cache are two ways to give the same"
        frames, first = hidden_states.shape[1], 0 if cache is None else cache.length
        turn = self._turn(first, frames, 1 if past is None else 2)
        if past is not None:
            assert past_timestep is not None, "past frames need their timesteps"
            hidden_states = torch.cat([past, hidden_states], 1)
            timestep = torch.cat([past_timestep, timestep], 1)
            action = torch.cat([action, action], 1)
        condition = F.silu(self.time(self._embed(timestep)) + self.action(action))
        x = self.enter(self._patches(hidden_states)) + self.place
        modulation = self.modulation(condition).unflatten(-1, (6, -1))
        if cache is not None:
            cache.make_room(frames)
        x = x.flatten(1, 2)
        for layer, block in enumerate(self.blocks):
            x = block(x, modulation, turn, self._attend(layer, frames, past is not None, cache))
        x = x.unflatten(1, (-1, self.grid**2))
        shift, scale = self.last(condition[:, -frames:, None]).chunk(2, -1)
        x = self.norm(x[:, -frames:]) * (1 + scale) + shift
        return self._pixels(self.leave(x))

    @torch.no_grad()
    def write(
        self, hidden_states: Tensor, timestep: Tensor, action: Tensor, cache: FrameCache
    ) -> None:
        """Let frames (b, f, c, h, w), at the levels at which later ones are to see them, be the
        last ones of the past."""
        self(hidden_states, timestep, action, cache=cache)
        cache.commit(hidden_states.shape[1])

    def _embed(self, timestep: Tensor) -> Tensor:
        # As MLPDenoiser's: smooth in t, and fine enough to tell 1 from 0.
        flat = get_timestep_embedding(
            timestep.flatten() / 100, 128, flip_sin_to_cos=True, scale=1.0
        )
        return flat.view(*timestep.shape, -1).to(self.enter.weight.dtype)

    def _turn(self, first: int, frames: int, copies: int) -> tuple[Tensor, Tensor]:
        """cos and sin of the rotations of all tokens; copies of the same frames bear one number."""
        width, weight = self.config["width"] // self.config["heads"], self.enter.weight
        cos, sin = (
            each.to(weight).repeat(copies, 1) for each in rotation(first, frames, self.grid, width)
        )
        return cos, sin

    def _attend(self, layer: int, frames: int, forced: bool, cache: FrameCache | None) -> Attend:
        """The attention of a layer's tokens, which see what they may."""
        context = self.config["context"]
        if cache is None:
            return partial(attend_by_frame, frames=frames, context=context, forced=forced)
        mask = frame_mask(frames, cache.seen, context).to(self.device)
        tokens = mask.repeat_interleave(self.grid**2, 0).repeat_interleave(self.grid**2, 1)

        def behind(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            key, value = cache.beside(layer, key, value)
            if frames == 1:
                return _attention(query, key, value)
            return F.scaled_dot_product_attention(query, key, value, tokens)

        return behind

    def _patches(self, x: Tensor) -> Tensor:
        batch, frames, channels = x.shape[:3]
        side = self.config["patch"]
        cut = x.view(batch, frames, channels, self.grid, side, self.grid, side)
        return cut.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, frames, self.grid**2, -1)

    def _pixels(self, x: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        side, channels = self.config["patch"], self.config["in_channels"]
        cut = x.view(batch, frames, self.grid, self.grid, channels, side, side)
        size = self.grid * side
        return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, channels, size, size)
