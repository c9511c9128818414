"""Training on several processes: the same as on one, whoever starts them and however the weights are kept."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.data.synthetic import Synthetic
from fromnoise.training.loaders import RecipeData
from fromnoise.training.processes import cluster_plugins, is_first_process, require_processes
from fromnoise.training.settings import TrainerSettings
from fromnoise.training.sharded import slice_up
from fromnoise.types import InputError
from tests.laws.test_backbones import CASES, given, randomised
from tests.two_processes import Run

# A diffusion model that draws times, noise and orders of its sources. Three validation items are a batch and a half for
# each of two devices: the last round is filled up.
ARGUMENTS = [
    *("recipe=debug/separate", "data.valid_items=3", "logger=csv", "trainer.max_epochs=2", "trainer.steps_per_epoch=4"),
    *("trainer.batch_size=1", "trainer.valid_batch_size=1", "trainer.samples=1"),
]
ACCUMULATED = [*ARGUMENTS, "trainer.accumulate_grad_batches=2"]
STRATEGIES = ("ddp", "fsdp")


def on_two(strategy: str, folder: Path, log: Path) -> Run:
    return Run(log, [*ARGUMENTS, "trainer.devices=2", f"trainer.strategy={strategy}", f"folder={folder}"])


def curve(folder: Path, column: str, part: int = 0) -> list[float]:
    with (folder / f"logs/csv-{part}/metrics.csv").open() as table:
        return [float(row[column]) for row in csv.DictReader(table) if row.get(column)]


def assert_same(folder: Path, reference: Path) -> None:
    """Weights and validation. The order of float32 sums differs by 6e-8 of O(1) gradients, and Adam makes full steps of
    3e-3 of gradients that are near 0: the mean over the weights is held to that, not each of them."""
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, reference))
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten().float() for name in theirs])
    assert float(apart.mean()) < 1e-6
    for column in ("valid/loss", "valid/si_sdr"):
        assert curve(folder, column)[:1] == pytest.approx(curve(reference, column)[:1], rel=1e-5), column
        assert curve(folder, column)[-1] == pytest.approx(curve(reference, column)[-1], rel=1e-3), column


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps on one process, which accumulates two batches for each: the global batch of two processes."""
    folder = tmp_path_factory.mktemp("single") / "run"
    assert main(["train", *ACCUMULATED, f"folder={folder}", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module", params=STRATEGIES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The same on two processes, undisturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    output = on_two(request.param, folder / "run", folder / "log").wait()
    assert output.count("done:") == output.count("epoch 2 step 8/8") == 1
    return request.param, folder / "run"


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates_also_with_drawn_noise(single: Path, whole: tuple[str, Path]):
    folder = whole[1]
    assert_same(folder, single)
    ours, theirs = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (folder, single))
    for part in ("state_dict", "current_model_state"):
        assert {k: v.shape for k, v in ours[part].items()} == {k: v.shape for k, v in theirs[part].items()}
    now, mean = ours["state_dict"], ours["current_model_state"]
    assert any(not torch.equal(now[name], mean[name]) for name in now)  # averages
    separator = hub.load(folder)
    assert separator(torch.zeros(1, 2000).uniform_(-0.1, 0.1), sample_rate=8000).shape == (2, 2000)


@pytest.mark.slow
def test_killed_and_resumed_on_two_processes_equals_an_undisturbed_run_bit_for_bit(
    whole: tuple[str, Path], tmp_path: Path
):
    strategy, undisturbed = whole
    folder = tmp_path / "run"
    on_two(strategy, folder, tmp_path / "log").kill_after("epoch 2 step 5/8")
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert not (folder / "model.safetensors").exists()
    Run(tmp_path / "again", [str(folder)]).wait()
    for name in ("best", "last"):
        ours, theirs = (torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True) for f in (folder, undisturbed))
        for part in ("state_dict", "current_model_state"):
            assert ours[part].keys() == theirs[part].keys()
            assert all(torch.equal(ours[part][k], theirs[part][k]) for k in ours[part])
    assert curve(folder, "train/loss", 1) == curve(undisturbed, "train/loss")[4:]
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, undisturbed))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """A group of one process: all of FSDP's machinery, and nobody to wait for."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


class Step(nn.Module):
    """What Lightning calls: a method other than forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, *given) -> torch.Tensor:
        return self.network(*given).square().mean()

    validation_step = training_step


@pytest.mark.parametrize("config", CASES)
def test_every_backbone_learns_the_same_in_slices(config, mesh: DeviceMesh):
    network, batch = randomised(config).train(), given(config, 2, 7)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    plain = Step(network).training_step(*batch)
    plain.backward()
    expected = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad()
    for name, value in network.named_buffers():
        value.copy_(buffers[name])
    step = Step(network)
    slice_up(step, mesh)
    assert all(isinstance(p, DTensor) for p in network.parameters())
    loss = step.training_step(*batch)
    loss.backward()
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
    for name, p in network.named_parameters():
        assert isinstance(p, DTensor)  # given up again after the step
        if expected[name] is not None:
            torch.testing.assert_close(p.grad.full_tensor(), expected[name], rtol=1e-9, atol=1e-12)


def test_validation_batches_are_dealt_out_evenly_and_each_counts_once():
    settings = TrainerSettings(devices=3, valid_batch_size=2)
    shares = []
    for rank in range(3):
        data = RecipeData(None, Synthetic(valid_items=7).valid(), settings)
        data.trainer = type("Trainer", (), {"global_rank": rank})()
        shares.append(list(data.val_dataloader().batch_sampler))
    assert shares == [[[0, 1], [6]], [[2, 3], [0, 1]], [[4, 5], [0, 1]]]  # numbers 4 and 5 of four batches fill up


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "x"}


@pytest.mark.parametrize(
    ("environment", "rank", "starter"), [(TORCHRUN, "RANK", "torchrun"), (SLURM, "SLURM_PROCID", "Slurm")]
)
def test_processes_of_others_are_counted_and_only_the_first_of_all_speaks(monkeypatch, environment, rank, starter):
    assert is_first_process() and not cluster_plugins()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not is_first_process()  # also the first of the second machine
    monkeypatch.setenv(rank, "0")
    assert is_first_process()
    if starter == "Slurm":
        with pytest.raises(InputError, match="ask Slurm for --ntasks-per-node=4, not for --ntasks=8"):
            require_processes(TrainerSettings(devices=4, num_nodes=2))
        monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    require_processes(TrainerSettings(devices=4, num_nodes=2))
    with pytest.raises(InputError, match=f"{starter} started 8 processes.*set trainer.devices=4 trainer.num_nodes=2"):
        require_processes(TrainerSettings(devices=8))
    assert [type(one).__name__ for one in cluster_plugins()] == (["SLURMEnvironment"] if starter == "Slurm" else [])


def test_what_fsdp_cannot_do_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    more = ["trainer.strategy=fsdp", "trainer.precision=64-true", f"folder={tmp_path}/run"]
    assert main(["train", *ARGUMENTS, *more]) == 2
    assert "works with trainer.precision=32-true or bf16-mixed, got 64-true" in capsys.readouterr().err
    assert main(["train", *ARGUMENTS, "trainer.strategy=deepspeed"]) == 2
    assert "trainer.strategy must be one of auto, ddp" in capsys.readouterr().err
