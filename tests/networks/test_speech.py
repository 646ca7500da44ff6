"""The speech network: padding, the boundary condition, the encoder's own losses."""

import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import CALLS, ENCODERS
from genkit.networks.alignment import spread
from genkit.networks.speech import SpeechDecoder, SpeechEncoder, SpeechNetwork
from genkit.paths import EDM

FRAMES, BANDS = 24, 8


def network(seed: int = 0) -> SpeechNetwork:
    torch.manual_seed(seed)
    encoder = SpeechEncoder(12, ("a", "b"), False, BANDS, width=16, layers=1, dropout=0.0, silent=2)
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
    durations = torch.tensor([[5, 9, 2, 4], [3, 1, 7, 0]])
    cond = {"tokens": torch.tensor(tokens), "speaker": torch.tensor([0, 1])}
    return cond | {"durations": durations}, x_0 * mask[..., None], mask


def test_padding_changes_neither_losses_nor_samples():
    made = denoiser()
    cond, x_0, mask = batch()
    told, losses = made.condition(cond, x_0, mask)
    short = {name: cond[name][1:, :3] for name in ("tokens", "durations")}
    short |= {"speaker": cond["speaker"][1:]}
    alone, own = made.condition(short, x_0[1:, :11], mask[1:, :11])
    for name in ("duration", "prior"):
        assert torch.allclose(losses[name][1:], own[name], atol=1e-6)
    assert torch.allclose(told["text"][1:, :11], alone["text"], atol=1e-6)
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


def test_means_and_durations_of_sounds_are_learned():
    """On mels whose sounds are constant and have one duration each; silence has none."""
    torch.manual_seed(0)
    made = network()
    sounds, lengths = torch.randn(12, BANDS), torch.arange(12) % 5 + 1
    lengths[2] = 0
    optimizer = torch.optim.Adam(made.text_encoder.parameters(), 3e-3)
    for _ in range(250):
        tokens = torch.randint(1, 12, (16, 4))
        cond = {"tokens": tokens, "speaker": torch.zeros(16, dtype=torch.long)}
        cond["durations"] = lengths[tokens]
        x_0, mask = spread(sounds[tokens], cond["durations"], FRAMES)
        told, losses = made.condition(cond, x_0, mask)
        (losses["prior"].mean() + losses["duration"].mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["prior"].mean() < 0.1
    assert (told["text"][..., :BANDS] - x_0)[mask].square().mean() < 0.2
    with torch.no_grad():
        _, found, _ = made.text_encoder(tokens, cond["speaker"])
    assert not found[tokens == 2].any() and (found - lengths[tokens]).abs().max() < 1


def test_without_data_durations_are_predicted_and_cut():
    made = denoiser()
    cond, _, _ = batch()
    told, losses = made.condition(cond)
    assert not losses and told["text"].shape == (2, FRAMES, BANDS + 16)
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
                | {name: told[name][i : i + 1, :n] for name in ("text", "mask")},
                "x_0",
            )
            .square()
            .sum(),
            weight,
        )[0]
        for i, n in enumerate((20, 11))
    )
    assert torch.allclose(whole, parts, atol=1e-5) and found.shape == x.shape
