"""The causal transformer of frames: what a frame sees, and that its cache changes nothing."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.networks.causal_video import (
    CausalVideoTransformer,
    attend_by_frame,
    frame_mask,
    rotate,
    rotation,
)
from genkit.networks.frame_cache import FrameCache


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = CausalVideoTransformer(
        sample_size=16, patch=8, width=32, depth=3, heads=2, context=3, num_actions=5
    )
    # What begins at zero would let nothing through.
    for each in (made.modulation, made.last, made.leave):
        torch.nn.init.normal_(each.weight, std=0.3)
    return made.eval()


def clip(frames, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, frames, 3, 16, 16, generator=generator)
    t = 1000 * torch.rand(batch, frames, generator=generator)
    return x, t, torch.randint(6, (batch, frames), generator=generator)


def test_a_network_of_the_default_size_has_64_tokens_a_frame():
    made = CausalVideoTransformer()
    assert made.grid**2 == 64
    assert 2e6 < sum(p.numel() for p in made.parameters()) < 3e6
    x = torch.randn(1, 2, 3, 64, 64)
    assert torch.equal(made._pixels(made._patches(x)), x)


def test_masks():
    assert frame_mask(3, 0, 8).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert frame_mask(2, 2, 2).int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


def test_only_differences_of_frame_row_and_column_count():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16).double()
    turned = [
        rotate(each.expand(-1, -1, 27, -1), *rotation(5, 3, 3, 16))[0, 0].view(3, 3, 3, 16)
        for each in (q, k)
    ]
    score = torch.einsum("ijkd,lmnd->ijklmn", *turned)
    for i, j, m in ((0, 0, 0), (1, 1, 1), (0, 1, 0), (1, 0, 1)):
        there = score[1, 0, 1, i, j, m]
        assert torch.allclose(score[2, 1, 1, i + 1, j + 1, m], there)
        assert torch.allclose(score[1, 1, 1, i, j + 1, m], there)
    # Each of the three is told apart.
    assert len({round(float(x), 6) for x in score[0, 0, 0].flatten()}) == 27


FORCED = [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]]
FORCED += [[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("forced", "mask"), [(False, frame_mask(3, 0, 1)), (True, torch.tensor(FORCED).bool())]
)
def test_frame_by_frame_is_the_masked_attention(forced, mask, grad):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5 * len(mask), 8) for _ in range(3))
    tokens = mask.repeat_interleave(5, 0).repeat_interleave(5, 1)
    with torch.set_grad_enabled(grad):
        found = attend_by_frame(q, k, v, 3, 1, forced)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, tokens)
    assert (found - want).abs().max() < 1e-6
    other = torch.nn.functional.scaled_dot_product_attention(q, k, v, tokens.flip(0))
    assert (found - other).abs().max() > 0.1


@torch.no_grad()
def test_changing_a_frame_leaves_earlier_outputs_bit_identical(network):
    x, t, action = clip(7)
    whole = network(x, t, action)
    for changed in range(7):
        other = x.clone()
        other[:, changed] += 1
        again = network(other, t, action)
        assert torch.equal(again[:, :changed], whole[:, :changed])
        assert not torch.allclose(again[:, changed:], whole[:, changed:])
        told = t.clone(), action.clone()
        told[0][:, changed], told[1][:, changed] = 7.0, 0
        assert torch.equal(network(x, *told)[:, :changed], whole[:, :changed])


@torch.no_grad()
def test_cached_equals_a_full_recompute(network):
    """Far beyond the context, the room of the cache, and a clip of many frames at once."""
    x, t, action = clip(40)
    whole = network(x, t, action)
    cache = network.cache(2, slack=2)
    network.write(x[:, :4], t[:, :4], action[:, :4], cache)
    for i in range(4, 40):
        frame = slice(i, i + 1)
        now = network(x[:, frame], t[:, frame], action[:, frame], cache=cache)
        assert (now - whole[:, frame]).abs().max() < 1e-5 * whole.abs().max()
        network.write(x[:, frame], t[:, frame], action[:, frame], cache)
    assert cache.length == 40 and cache.held < 20


@torch.no_grad()
def test_an_evaluation_leaves_the_cache_as_it_is(network):
    x, t, action = clip(3)
    cache = network.cache(2)
    network.write(x[:, :2], t[:, :2], action[:, :2], cache)
    one = network(x[:, 2:], t[:, 2:], action[:, 2:], cache=cache)
    network(x[:, :1], t[:, :1], action[:, :1], cache=cache)
    assert torch.equal(network(x[:, 2:], t[:, 2:], action[:, 2:], cache=cache), one)


@torch.no_grad()
def test_frames_taken_back_leave_no_trace(network):
    x, t, action = clip(60)
    straight, other = network.cache(2, slack=3), network.cache(2, slack=3)
    wrong = clip(3, seed=1)
    for i in range(60):
        frame = slice(i, i + 1)
        a = network(x[:, frame], t[:, frame], action[:, frame], cache=straight)
        for k in range(i % 4):
            network.write(*(each[:, k : k + 1] for each in wrong), other)
        other.back(i)
        b = network(x[:, frame], t[:, frame], action[:, frame], cache=other)
        assert torch.equal(a, b), i
        for cache in (straight, other):
            network.write(x[:, frame], t[:, frame], action[:, frame], cache)


@torch.no_grad()
def test_more_than_the_slack_cannot_be_taken_back(network):
    x, t, action = clip(1)
    cache = network.cache(2, slack=1)
    for _ in range(40):
        network.write(x, t, action, cache)
    with pytest.raises(ValueError, match="cannot be taken back"):
        cache.back(20)
    assert cache.length == 40


@torch.no_grad()
def test_forced_frames_are_those_of_a_roll_out(network):
    """Given the past, all frames at once are what each would be behind the cache of that past."""
    x, t, action = clip(8)
    past, past_t, _ = clip(8, seed=1)
    whole = network(x, t, action, past, past_t)
    cache = network.cache(2)
    for i in range(8):
        frame = slice(i, i + 1)
        now = network(x[:, frame], t[:, frame], action[:, frame], cache=cache)
        assert (now - whole[:, frame]).abs().max() < 1e-5 * whole.abs().max()
        network.write(past[:, frame], past_t[:, frame], action[:, frame], cache)


def test_gradients_flow_through_a_frame_behind_the_cache(network):
    x, t, action = clip(3)
    cache = network.cache(2)
    network.write(x[:, :2], t[:, :2], action[:, :2], cache)
    frame = x[:, 2:].clone().requires_grad_(True)
    now = network(frame, t[:, 2:], action[:, 2:], cache=cache)
    network.write(x[:, 2:], t[:, 2:], action[:, 2:], cache)
    (gradient,) = torch.autograd.grad(now.square().sum(), frame)
    with torch.no_grad():
        step = 1e-2 * gradient / gradient.norm()
        more, less = (
            network(
                torch.cat([x[:, :2], frame + sign * step], 1), t, action
            )[:, 2:].square().sum()
            for sign in (1, -1)
        )  # fmt: skip
    assert (more - less) / 2e-2 == pytest.approx(float(gradient.norm()), rel=1e-2)


@pytest.mark.parametrize("forced", [False, True])
def test_forward_derivatives_by_math_attention(network, forced):
    twice = CausalVideoTransformer.from_config(network.config).double()
    twice.load_state_dict(network.state_dict())
    x, t, action = clip(4)
    x, t = x.double(), t.double()
    past = (x.flip(0), torch.full_like(t, 50.0)) if forced else ()
    dx, dt = torch.randn_like(x), torch.randn_like(t)
    f = lambda x, t: twice(x, t, action, *past)  # noqa: E731
    with sdpa_kernel(SDPBackend.MATH):
        _, slope = torch.func.jvp(f, (x, t), (dx, dt))
    with torch.no_grad():
        h = 3e-3  # the embedding of t is float32 inside
        ahead, behind = f(x + h * dx, t + h * dt), f(x - h * dx, t - h * dt)
    assert (slope - (ahead - behind) / (2 * h)).abs().max() < 2e-3 * slope.abs().max()


def test_a_saved_network_is_the_same(network, tmp_path):
    network.save_pretrained(tmp_path)
    again = CausalVideoTransformer.from_pretrained(tmp_path)
    x, t, action = clip(3)
    with torch.no_grad():
        assert torch.equal(again(x, t, action), network(x, t, action))


def test_broken_twin_a_cache_that_takes_back_one_frame_too_few(network):
    """The off-by-one that an exact rollback must not have."""

    class Late(FrameCache):
        def back(self, length):
            super().back(min(length + 1, self.length))

    x, t, action = clip(4)
    cache = network.cache(2, slack=3)
    cache.__class__ = Late
    with torch.no_grad():
        whole = network(x, t, action)
        network.write(x[:, :3], t[:, :3], action[:, :3], cache)
        network.write(x[:, :2], t[:, :2], action[:, :2], cache)
        cache.back(3)
        now = network(x[:, 3:], t[:, 3:], action[:, 3:], cache=cache)
    assert not torch.allclose(now, whole[:, 3:], atol=1e-3)
