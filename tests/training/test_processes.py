"""Two processes train as one: the same losses, the same weights, to rounding."""

import os
import socket
from pathlib import Path

import pytest
import torch
from training_toys import Net, OneRole, TwoRoles, call, one_role, two_roles, weights

from genkit.denoisers.base import NetworkDenoiser
from genkit.paths import RectifiedFlow
from genkit.training.health import Collapse
from genkit.training.log import read_log


def without_dropout(given=None):
    return NetworkDenoiser(Net(dropout=0.0), call, RectifiedFlow(), "velocity")


def train(out: Path, accumulate: int = 1):
    """Both toy methods. Dropout is drawn per process, so the networks here have none."""
    config = {"accumulate": accumulate}
    one = one_role(out / "one", config, OneRole(build=without_dropout), network=None)
    one.run()
    two = two_roles(out / "two", config, TwoRoles())
    for module in two.networks.nets.values():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
    two.run()
    return {**weights(one), **{f"two/{key}": value for key, value in weights(two).items()}}


class NaNInOne(OneRole):
    """Its loss turns NaN in the second process only."""

    def loss(self, roles, batch, moment, rng):
        losses = super().loss(roles, batch, moment, rng)
        bad = moment.step == 5 and rng.rank == 1
        return {key: value * float("nan") if bad else value for key, value in losses.items()}


def collapse_together(out: Path) -> None:
    with pytest.raises(Collapse, match="turned nan"):
        one_role(out / "nan", {}, NaNInOne()).run()


def work(rank: int, out: Path, port: int) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ.update({key: str(value) for key, value in place.items()})
    torch.set_num_threads(1)
    found = train(out)
    torch.distributed.barrier()
    collapse_together(out)
    from safetensors.torch import save_file

    save_file(
        {key: value.contiguous() for key, value in found.items()}, out / f"{rank}.safetensors"
    )
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    from safetensors.torch import load_file

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (tmp_path / "pair", port), nprocs=2)
    alone = train(tmp_path / "alone")
    pair = [load_file(tmp_path / "pair" / f"{rank}.safetensors") for rank in (0, 1)]
    for key in alone:
        # The buffer counts calls, in each process its own.
        if not key.endswith("calls"):
            assert torch.equal(pair[0][key], pair[1][key]), key
            torch.testing.assert_close(alone[key], pair[0][key], rtol=1e-3, atol=1e-5, msg=key)
    for name in ("one", "two"):
        single, several = read_log(tmp_path / "alone" / name), read_log(tmp_path / "pair" / name)
        assert [line["step"] for line in single] == [line["step"] for line in several]
        for mine, theirs in zip(single, several, strict=True):
            figures = {key: value for key, value in mine.items() if isinstance(value, float)}
            assert figures == pytest.approx({key: theirs[key] for key in figures}, rel=1e-4)
