"""Learning rates, clipping and the state of one role's optimizer."""

import pytest
import torch
from torch import nn

from genkit.methods.base import Moment, Role, Stage
from genkit.training.optimizers import RoleOptimizer, rate_factor

STAGE = Stage("only")


def test_warmup_counts_updates_and_decay_the_stage():
    role = Role(warmup=4, decay=True)
    factors = [rate_factor(role, k, Moment(STAGE, k, 8)) for k in range(8)]
    assert factors == [0.25, 0.5 * 7 / 8, 0.75 * 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]


def test_neither_is_on_by_default():
    assert rate_factor(Role(), 0, Moment(STAGE, 7, 8)) == 1


def stepped(role: Role, stage: Stage = STAGE, gradient: float = 10.0) -> tuple[nn.Linear, float]:
    module = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimizer = RoleOptimizer(module, role)
    module.weight.grad = torch.full((1, 2), gradient)
    norm = optimizer.step(Moment(stage, 0, 10), "student")
    assert module.weight.grad is None
    return module, -1 if norm is None else norm.item()


def test_first_adamw_step_is_the_learning_rate():
    module, norm = stepped(Role(lr=0.1, clip=None))
    assert norm == -1
    torch.testing.assert_close(module.weight, torch.full((1, 2), -0.1))


def test_a_stage_names_another_learning_rate():
    module, _ = stepped(Role(lr=0.1), Stage("only", lr={"student": 0.3}))
    torch.testing.assert_close(module.weight, torch.full((1, 2), -0.3))


def test_gradients_are_clipped_by_their_norm():
    module = nn.Linear(2, 1, bias=False)
    optimizer = RoleOptimizer(module, Role(clip=1.0))
    module.weight.grad = torch.tensor([[3.0, 4.0]])
    norm = optimizer.step(Moment(STAGE, 0, 1), "student")
    assert norm is not None and norm.item() == pytest.approx(5.0)
    moment = optimizer.tensors()["weight/exp_avg"]
    torch.testing.assert_close(moment, 0.1 * torch.tensor([[0.6, 0.8]]))


def test_muon_moves_a_matrix_along_an_orthogonal_one():
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    optimizer = RoleOptimizer(module, Role(lr=0.1, clip=None), "weight")
    gradient = torch.randn(4, 8)
    module.weight.grad, module.bias.grad = gradient.clone(), torch.ones(4)
    optimizer.step(Moment(STAGE, 0, 10), "student")
    # AdamW's first step of the bias is the learning rate; the matrix moves by U V^T of its
    # gradient's singular vectors, 0.2 sqrt(8) times the rate (Newton-Schulz brings singular values
    # to within 0.7 to 1.2 of one another).
    torch.testing.assert_close(module.bias, torch.full((4,), -0.1))
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    inner = -(u.T @ module.weight.detach() @ v.T) / (0.1 * 0.2 * 8**0.5)
    assert inner.diag().min() > 0.6 and inner.diag().max() < 1.3
    assert (inner - inner.diag().diag()).abs().max() < 0.15


def test_slow_parameters_learn_at_a_tenth_of_the_rate_whatever_muon_asks_for():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for each in module.parameters():
        nn.init.zeros_(each)
    optimizer = RoleOptimizer(module, Role(lr=0.1, clip=None), muon="weight", slow=r"^1\.")
    for each in module.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step(Moment(STAGE, 0, 10), "student")
    # AdamW's first step is the rate itself.
    torch.testing.assert_close(module[0].bias, torch.full((2,), -0.1))
    torch.testing.assert_close(module[1].bias, torch.full((2,), -0.01))
    torch.testing.assert_close(module[1].weight, torch.full((2, 2), -0.01))
    assert module[0].weight.unique().numel() == 1 and module[0].weight[0, 0] != -0.1


@pytest.mark.parametrize("muon, slow", [("", ""), ("weight", ""), ("weight", "bias"), ("", "bias")])
def test_state_goes_out_and_back(muon: str, slow: str):
    torch.manual_seed(0)
    module, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(module.state_dict())
    role = Role(warmup=9)
    optimizer, other = (
        RoleOptimizer(module, role, muon, slow),
        RoleOptimizer(twin, role, muon, slow),
    )

    def step(pair, number):
        torch.manual_seed(number)
        for each in pair[0].parameters():
            each.grad = torch.randn_like(each)
        pair[1].step(Moment(STAGE, number, 10), "student")

    step((module, optimizer), 0)
    twin.load_state_dict(module.state_dict())
    other.load({key: value.clone() for key, value in optimizer.tensors().items()}, 1)
    step((module, optimizer), 1)
    step((twin, other), 1)
    assert torch.equal(module.weight, twin.weight) and torch.equal(module.bias, twin.bias)
