"""The speech network: padding, the boundary condition, the encoder's own losses, alignment."""

import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import CALLS, ENCODERS
from genkit.networks.speech import SpeechDecoder, SpeechEncoder, SpeechNetwork
from genkit.paths import EDM

FRAMES, BANDS = 24, 8


def network(seed: int = 0) -> SpeechNetwork:
    torch.manual_seed(seed)
    encoder = SpeechEncoder(12, ("a", "b"), False, BANDS, width=16, layers=1, dropout=0.0)
    decoder = SpeechDecoder(BANDS, FRAMES, width=16, depth=2, voice_width=16)
    for zero in (decoder.modulation, decoder.leave):
        torch.nn.init.normal_(zero.weight, std=0.1)
    return SpeechNetwork(encoder, decoder)


def denoiser(seed: int = 0) -> NetworkDenoiser:
    made, name = network(seed), "SpeechNetwork"
    return NetworkDenoiser(made, CALLS[name], EDM(), "x_0", encoder=ENCODERS[name])


def batch(tokens=((3, 4, 5, 6), (7, 8, 9, 0)), frames=(20, 11)):
    x_0 = torch.randn(2, FRAMES, BANDS, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(FRAMES) < torch.tensor(frames)[:, None]
    cond = {"tokens": torch.tensor(tokens), "speaker": torch.tensor([0, 1])}
    return cond, x_0 * mask[..., None], mask


def test_padding_changes_neither_losses_nor_samples():
    made = denoiser()
    cond, x_0, mask = batch()
    told, losses = made.condition(cond, x_0, mask)
    short = {"tokens": cond["tokens"][1:, :3], "speaker": cond["speaker"][1:]}
    alone, own = made.condition(short, x_0[1:, :11], mask[1:, :11])
    for name in ("duration", "prior"):
        assert torch.allclose(losses[name][1:], own[name], atol=1e-6)
    assert torch.allclose(told["means"][1:, :11], alone["means"], atol=1e-6)
    x, t = torch.randn(2, FRAMES, BANDS), torch.tensor([0.7, 0.7])
    whole = made.predict(x, t, told, "x_0")
    single = made.predict(x[1:, :11], t[1:], alone, "x_0")
    assert torch.allclose(whole[1:, :11], single, atol=1e-5)
    assert not whole[1, 11:].any()


def test_the_least_noise_is_left_alone():
    made = denoiser()
    cond, x_0, mask = batch()
    told, _ = made.condition(cond, x_0, mask)
    t = torch.full((2,), made.path.t_min)
    assert torch.allclose(made.predict(x_0, t, told, "x_0"), x_0, atol=1e-6)


def test_durations_do_not_bend_the_features():
    made = denoiser()
    cond, x_0, mask = batch()
    losses = made.condition(cond, x_0, mask)[1]
    losses["duration"].sum().backward()
    assert made.network.text_encoder.symbol.weight.grad is None
    assert made.network.text_encoder.duration_out.weight.grad.abs().sum() > 0


def test_an_order_of_sounds_is_learned_and_found_again():
    """On mels whose sounds are constant, the encoder's means and the true durations are found."""
    torch.manual_seed(0)
    made = network()
    sounds = torch.randn(12, BANDS)
    optimizer = torch.optim.Adam(made.text_encoder.parameters(), 3e-3)
    for _ in range(250):
        tokens = torch.randint(1, 12, (16, 4))
        durations = torch.randint(1, 6, (16, 4))
        x_0 = torch.zeros(16, FRAMES, BANDS)
        for row in range(16):
            laid = sounds[tokens[row]].repeat_interleave(durations[row], 0)
            x_0[row, : len(laid)] = laid
        mask = torch.arange(FRAMES) < durations.sum(1)[:, None]
        cond = {"tokens": tokens, "speaker": torch.zeros(16, dtype=torch.long)}
        told, losses = made.condition(cond, x_0, mask)
        (losses["prior"].mean() + losses["duration"].mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["prior"].mean() < 0.1
    assert (told["means"] - x_0)[mask].square().mean() < 0.2


def test_without_data_durations_are_predicted_and_cut():
    made = denoiser()
    cond, _, _ = batch()
    told, losses = made.condition(cond)
    assert not losses and told["means"].shape == (2, FRAMES, BANDS)
    assert told["mask"].any(1).all()
    with torch.no_grad():
        made.network.text_encoder.duration_out.bias.fill_(9.0)
    assert made.condition(cond)[0]["mask"].all()


def test_frames_that_are_not_there_cost_no_derivative():
    """The work that padding is spared has derivatives in time and in weights as the whole has."""
    made, (cond, x_0, mask) = denoiser(), batch()
    told, _ = made.condition(cond, x_0, mask)
    told = {name: each.detach() for name, each in told.items()}
    x, t = torch.randn(2, FRAMES, BANDS), torch.tensor([0.7, 0.7])

    def at(t: torch.Tensor) -> torch.Tensor:
        return made.predict(x, t, told, "x_0")

    found, slope = torch.func.jvp(at, (t,), (torch.ones(2),))
    assert torch.allclose(slope, (at(t + 1e-2) - at(t - 1e-2)) / 2e-2, atol=1e-2)
    weight = made.network.network.blocks[0].up.weight
    (whole,) = torch.autograd.grad(at(t).square().sum(), weight)
    parts = sum(
        torch.autograd.grad(
            made.predict(
                x[i : i + 1, :n],
                t[i : i + 1],
                {"voice": told["voice"][i : i + 1]}
                | {name: told[name][i : i + 1, :n] for name in ("means", "mask")},
                "x_0",
            )
            .square()
            .sum(),
            weight,
        )[0]
        for i, n in enumerate((20, 11))
    )
    assert torch.allclose(whole, parts, atol=1e-5) and found.shape == x.shape
