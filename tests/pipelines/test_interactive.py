"""The interactive pipeline: what it draws is decided by seed and actions, however it is asked."""

import pytest
import torch

from genkit import hub
from genkit.denoisers.diffusers import as_denoiser
from genkit.networks.causal_video import CausalVideoTransformer
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.video.interactive import InteractiveVideoPipeline

STRINGS = ([1, 1, 1, 2, 2, 2, 2, 0], [1, 2, 3, 4, 0, 1, 2, 3], [0, 0, 3, 3, 3, 1, 1, 4])


def pipeline_of(steps=1, stochastic=False):
    torch.manual_seed(0)
    network = CausalVideoTransformer(
        sample_size=16, sample_frames=4, width=32, depth=2, heads=2, context=3
    )
    for each in (network.modulation, network.last, network.leave):
        torch.nn.init.normal_(each.weight, std=0.2)
    sampler = Sampler(steps, stochastic=stochastic)
    made = InteractiveVideoPipeline(
        network.eval(), hub.make_scheduler(sampler, RectifiedFlow(), "velocity", 1000.0)
    )
    made.register_to_config(_genkit={"steps": steps, "guidance": 1.0})
    return made


@pytest.fixture
def pipeline():
    return pipeline_of()


def play(pipeline, actions, seed=0, **given):
    pipeline.reset(seed)
    return pipeline.rollout(actions, output_type="latent", **given).frames


@pytest.mark.parametrize(("steps", "stochastic"), [(1, False), (3, True), (4, False)])
@pytest.mark.parametrize("ahead", [1, 5])
def test_frames_are_the_same_however_far_the_sampler_runs_ahead(steps, stochastic, ahead):
    pipeline = pipeline_of(steps, stochastic)
    for actions in STRINGS[:1] if steps > 1 else STRINGS:
        straight = play(pipeline, actions)
        drafted = play(pipeline, actions, ahead=ahead)
        assert (straight - drafted).abs().max() < 1e-5
        wrong = play(pipeline, actions, ahead=ahead, predict=lambda before: 4)
        assert (straight - wrong).abs().max() < 1e-5


def test_what_was_predicted_rightly_is_not_drawn_again(pipeline):
    drawn = []
    plain = pipeline._draw
    pipeline._draw = lambda *given: drawn.append(1) or plain(*given)
    play(pipeline, [1] * 8)
    assert len(drawn) == 8
    drawn.clear()
    play(pipeline, [1] * 8, ahead=1)
    assert len(drawn) == 9
    pipeline.run_ahead(1)
    assert len(drawn) == 9


def test_seed_action_and_number_decide_a_frame(pipeline):
    first = play(pipeline, STRINGS[1])
    assert torch.equal(first, play(pipeline, STRINGS[1]))
    assert not torch.equal(first, play(pipeline, STRINGS[1], seed=1))
    other = play(pipeline, [*STRINGS[1][:5], 0, 2, 3])
    assert torch.equal(first[:, :5], other[:, :5])
    assert not torch.allclose(first[:, 5:6], other[:, 5:6])


def test_steps_are_those_of_a_roll_out_and_go_on_for_long(pipeline):
    whole = play(pipeline, [k % 5 for k in range(40)])
    pipeline.reset(0)
    for k in range(40):
        assert torch.equal(pipeline.step(k % 5, output_type="latent"), whole[:, k : k + 1])
    assert whole.isfinite().all()


def test_a_call_makes_what_the_trainer_samples(pipeline):
    actions = torch.tensor(STRINGS[:2])
    noise = sample_noise((8, 3, 16, 16), sample_generators(5, 2))
    loaded = as_denoiser(pipeline)
    assert loaded.latent == (4, 3, 16, 16) and loaded.denoiser.levels == 2
    with torch.no_grad():
        x = loaded.denoiser.sample(noise, {"action": actions}, pipeline.scheduler, 1)
    called = pipeline(actions.tolist(), generator=sample_generators(5, 2), output_type="latent")
    assert torch.equal(called.frames, x)


def test_a_call_and_a_game_on_the_same_noise_are_the_same(pipeline):
    noise = torch.cat([pipeline._noise(3, i)[0] for i in range(8)], 1)
    called = pipeline(STRINGS[2], latents=noise, output_type="latent").frames
    assert (called - play(pipeline, STRINGS[2], seed=3)).abs().max() < 1e-5


def test_outputs(pipeline):
    pipeline.reset(0)
    frame = pipeline.step(1)
    assert frame.size == (16, 16)
    assert pipeline.step(1, output_type="pt").shape == (1, 1, 3, 16, 16)
    frames = pipeline(STRINGS[0], num_images_per_prompt=2).frames
    assert len(frames) == 2 and len(frames[0]) == 8 and frames[0][0].size == (16, 16)
    assert pipeline(STRINGS[0], output_type="np").frames.shape == (1, 8, 16, 16, 3)
    assert isinstance(pipeline(STRINGS[0], return_dict=False), tuple)


def test_saved_and_opened_it_plays_the_same(pipeline, tmp_path):
    before = play(pipeline, STRINGS[1])
    hub.save_pipeline(pipeline, tmp_path / "world", {"steps": 1, "guidance": 1.0})
    again = hub.Pipeline.from_pretrained(tmp_path / "world")
    assert isinstance(again, InteractiveVideoPipeline)
    assert torch.equal(play(again, STRINGS[1]), before)


def test_a_game_goes_on_from_a_clip(pipeline):
    clip = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pipeline.reset(0, clip)
    one = pipeline.step(1, output_type="latent")
    pipeline.reset(0, clip.clone(), [0] * 6)
    assert not torch.equal(pipeline.step(1, output_type="latent"), one)
    pipeline.reset(0, torch.cat([clip[:1] * 0, clip[1:]]))
    assert not torch.equal(pipeline.step(1, output_type="latent"), one)


def test_clips_go_on_from_given_ones_each_by_itself(pipeline):
    given = torch.rand(3, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    led = [[0] * 6, [1] * 6, [2] * 6]

    def made(rows, **told):
        noise = [sample_generators(0, 3)[i] for i in rows]
        strings = [list(STRINGS[i]) for i in rows]
        return pipeline(strings, generator=noise, output_type="latent", **told).frames

    whole = made([0, 1, 2], frames=given, frame_actions=led)
    assert whole.shape == (3, 8, 3, 16, 16)
    for i in range(3):
        single = made([i], frames=given[i], frame_actions=led[i])
        assert (single - whole[i : i + 1]).abs().max() < 1e-5
    assert not torch.allclose(made([0], frames=given[0]), whole[:1])
    assert not torch.allclose(made([0], frames=given[1], frame_actions=led[0]), whole[:1])
    one_for_all = made([0, 1, 2], frames=given[0], frame_actions=led[0])
    assert (one_for_all[:1] - whole[:1]).abs().max() < 1e-5
    assert not torch.allclose(one_for_all[1], whole[1])


def test_a_clip_that_goes_on_sees_what_a_longer_one_would(pipeline):
    """Six frames given, then one: as the seventh of seven denoised with the six before it."""
    given = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(2)
    made = pipeline([3], latents=noise, generator=drawn, output_type="latent", frames=given).frames
    eps = torch.randn(1, 6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    denoiser, x_0 = pipeline.denoiser, 2 * given[None] - 1
    action = torch.tensor([[5] * 6 + [3]])
    both = torch.cat([x_0, noise], 1)
    seen = denoiser.given(both, {"action": action}, torch.cat([eps, noise], 1))
    with torch.no_grad():
        x_1 = denoiser.predict(both, torch.ones(1, 7), seen, "x_0")[:, -1:]
    assert (made - x_1).abs().max() < 1e-5


@pytest.mark.parametrize("action", [5, -1, "up", True, 1.5])
def test_an_unknown_action_is_one_sentence_and_harms_nothing(pipeline, action):
    whole = play(pipeline, [1, 2, 3])
    pipeline.reset(0)
    pipeline.step(1)
    with pytest.raises(ValueError, match="there is no action .*; give integers from 0 to 4"):
        pipeline.step(action)
    with pytest.raises(ValueError, match="there is no action"):
        pipeline.rollout([2, action])
    assert torch.equal(pipeline.step(2, output_type="latent"), whole[:, 1:2])


@pytest.mark.parametrize("when", ["frame", "write"])
def test_a_failed_step_leaves_the_game_as_it_was(pipeline, when, monkeypatch):
    whole = play(pipeline, [1, 2, 3])
    pipeline.reset(0)
    pipeline.step(1)
    plain, count = CausalVideoTransformer.forward, []

    def fail(self, *given, **named):
        count.append(1)
        if len(count) == (1 if when == "frame" else 2):
            raise KeyboardInterrupt
        return plain(self, *given, **named)

    monkeypatch.setattr(CausalVideoTransformer, "forward", fail)
    with pytest.raises(KeyboardInterrupt):
        pipeline.step(4)
    monkeypatch.undo()
    assert torch.equal(pipeline.step(2, output_type="latent"), whole[:, 1:2])


def test_bad_input_is_one_sentence(pipeline):
    with pytest.raises(ValueError, match="the clip has 2 frames; give at least the 3"):
        pipeline.reset(0, torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="the clip has no frames; give at least the 3"):
        pipeline.reset(0, [])
    with pytest.raises(ValueError, match="2 actions for 4 frames"):
        pipeline.reset(0, torch.rand(4, 3, 16, 16), [1, 2])
    with pytest.raises(ValueError, match="2 clips are given for 3"):
        pipeline([[1]] * 3, frames=torch.rand(2, 4, 3, 16, 16))
    with pytest.raises(ValueError, match="4 actions for 5 frames"):
        pipeline([1], frames=torch.rand(5, 3, 16, 16), frame_actions=[[1] * 4])
    with pytest.raises(ValueError, match="there are no actions"):
        pipeline([])
    with pytest.raises(ValueError, match="several lengths"):
        pipeline([[1, 2], [1]])
    with pytest.raises(ValueError, match="unknown output_type"):
        pipeline.step(1, output_type="gif")
    pipeline.reset(0)
    with pytest.raises(ValueError, match="9 frames ahead; give 1 to 8"):
        pipeline.run_ahead(9)
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        pipeline.step(1, num_inference_steps=0)
