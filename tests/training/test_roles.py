"""The networks of a run: how they begin, who trains, what a stage copies."""

import pytest
import torch
from torch import nn
from training_toys import OneRole, TwoRoles, denoiser

from genkit.denoisers.base import Guided
from genkit.methods.base import Role, Stage
from genkit.training.roles import Networks, flat, load_flat


def networks(method=None, teacher=None, seed=0) -> Networks:
    return Networks(method or OneRole(), denoiser, teacher, seed)


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_fresh_networks_are_a_function_of_the_seed():
    first, again, other = (networks(seed=seed).nets["student"] for seed in (0, 0, 1))
    assert equal(first, again) and not equal(first, other)


def test_a_copy_of_the_teacher_trains_and_the_teacher_does_not():
    teacher = denoiser()
    made = networks(TwoRoles(), teacher)
    assert equal(made.nets["student"], teacher) and equal(made.nets["fake"], teacher)
    assert made.nets["student"] is not teacher and made.nets["teacher"] is teacher
    made.take_turn(("student",))
    assert all(each.requires_grad for each in made.nets["student"].parameters())
    assert not any(each.requires_grad for each in made.nets["fake"].parameters())
    assert not any(each.requires_grad for each in teacher.parameters())
    assert not teacher.training and made.nets["student"].training
    made.take_turn(("fake",))
    assert not any(each.requires_grad for each in made.nets["student"].parameters())
    # A second run in the same process is given a teacher that the first one froze.
    again = networks(TwoRoles(), teacher)
    again.take_turn(("student",))
    assert all(each.requires_grad for each in again.nets["student"].parameters())


def test_a_built_role_keeps_what_it_froze():
    def build(given):
        made = denoiser()
        made.network.layers[0].requires_grad_(False)
        return made

    made = networks(OneRole(build=build))
    made.take_turn(("student",))
    asks = {name: each.requires_grad for name, each in made.nets["student"].named_parameters()}
    assert asks["network.layers.0.weight"] is False and asks["network.layers.3.weight"] is True
    assert len(made.optimizers["student"].parameters) == 2


def test_an_unknown_start_is_named():
    with pytest.raises(ValueError, match="'student' starts as 'teacher'"):
        networks(OneRole(start="teacher"))


def test_turns_of_roles_that_do_not_train_are_a_bug():
    with pytest.raises(AssertionError, match="teacher"):
        networks(TwoRoles(), denoiser()).take_turn(("teacher",))


def test_guidance_is_put_around_the_teacher_of_its_stage():
    method = TwoRoles()
    method.uncond = {"label": torch.tensor([7])}
    made = networks(method, denoiser())
    plain, guided = made.view(Stage("a")), made.view(Stage("b", guidance=2.0))
    assert plain["teacher"] is made.nets["teacher"]
    assert isinstance(guided["teacher"], Guided) and guided["teacher"].w == 2.0
    assert set(plain) == {"teacher", "student", "fake", "student.export", "student.target"}


def test_guidance_without_a_condition_is_refused():
    method = TwoRoles()
    method.uncond = None
    with pytest.raises(ValueError, match="guidance 2.0"):
        networks(method, denoiser()).view(Stage("b", guidance=2.0))


def changed(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for each in module.parameters():
            each += by


def test_a_stage_makes_the_teacher_the_students_average():
    made = networks(TwoRoles(), denoiser())
    given = made.nets["teacher"]
    changed(made.nets["student"], 1.0)
    changed(made.averages["student.export"].module, 0.5)
    made.enter(Stage("next", start={"teacher": "student"}))
    assert equal(made.nets["teacher"], made.averages["student.export"].module)
    assert not equal(made.nets["teacher"], given)
    assert not any(each.requires_grad for each in made.nets["teacher"].parameters())
    assert "teacher/network.layers.0.weight" in made.tensors()["weights"]


def test_a_stage_copies_into_a_role_that_trains_in_place():
    made = networks(TwoRoles(), denoiser())
    fake = made.nets["fake"]
    changed(made.averages["student.export"].module, 0.5)
    made.enter(Stage("next", start={"fake": "student", "student": "teacher"}))
    assert made.nets["fake"] is fake
    assert equal(fake, made.averages["student.export"].module) is False
    assert equal(made.averages["student.export"].module, made.nets["teacher"])


def test_untouched_frozen_roles_are_not_stored():
    stored = networks(TwoRoles(), denoiser()).tensors()
    assert not any(key.startswith("teacher/") for key in stored["weights"])


def test_what_is_stored_comes_back():
    def trained(seed: int) -> Networks:
        torch.manual_seed(seed)
        made = networks(TwoRoles(), denoiser(), seed)
        for module in (*made.nets.values(), *(each.module for each in made.averages.values())):
            changed(module, torch.rand(()).item())
        return made

    made, again = trained(0), trained(1)
    made.averages["student.export"].updates = 7
    again.load(made.tensors(), made.counts())
    assert equal(made.nets["student"], again.nets["student"])
    assert equal(made.averages["student.export"].module, again.averages["student.export"].module)
    assert again.averages["student.export"].updates == 7


def test_delivered_modules_are_frozen_copies_of_the_export_average():
    made = networks(TwoRoles(), denoiser())
    changed(made.averages["student.export"].module, 0.5)
    kept = {key: value.clone() for key, value in made.export_tensors().items()}
    changed(made.averages["student.export"].module, 0.5)
    best, last = made.export_modules(kept), made.export_modules()
    assert equal(last["student"], made.averages["student.export"].module)
    assert not equal(best["student"], last["student"])
    assert equal(best["fake"], made.nets["fake"])
    assert not best["student"].training
    assert not any(each.requires_grad for each in best["student"].parameters())


def test_tied_weights_stand_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    tensors = {key: value.clone() + 1 for key, value in flat({"m": module}).items()}
    assert list(tensors) == ["m/0.weight"]
    load_flat(module, tensors, "m")
    assert torch.equal(module[1].weight, tensors["m/0.weight"])


def test_a_role_without_start_needs_a_network():
    with pytest.raises(ValueError, match="fresh network"):
        Networks(OneRole(), None, None, 0)


def test_frozen_roles_stay_frozen():
    class Frozen(OneRole):
        def nets(self):
            return {**super().nets(), "first": Role("student", trainable=False)}

    made = networks(Frozen())
    assert "first" not in made.optimizers and not made.nets["first"].training
    assert equal(made.nets["first"], made.nets["student"])
