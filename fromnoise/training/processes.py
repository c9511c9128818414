"""Who this process of a distributed run is, and which processes there are.

Three may start the processes of a run: Lightning, which starts the others of a machine as copies of the first;
torchrun; and Slurm's srun. The last two say in the environment how many there are, which must agree with the recipe.
"""

import os
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from fromnoise.training.settings import TrainerSettings
from fromnoise.types import InputError


def is_first_process() -> bool:
    """Whether this process of a distributed run is the one that speaks and writes."""
    if TorchElasticEnvironment.detect():
        return os.environ["RANK"] == "0"
    if SLURMEnvironment.detect():
        return os.environ.get("SLURM_PROCID", "0") == "0"
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def require_processes(settings: TrainerSettings) -> None:
    """Raises InputError unless torchrun or Slurm started as many processes as the recipe says."""
    if TorchElasticEnvironment.detect():
        world, each = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        nodes, starter = world // each, "torchrun"
        more = f"or torchrun --nproc-per-node={settings.devices} --nnodes={settings.num_nodes}"
    elif SLURMEnvironment.detect():
        world, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", 1))
        if world > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise InputError(f"ask Slurm for --ntasks-per-node={world // nodes}, not for --ntasks={world}")
        each, starter = world // nodes, "Slurm"
        more = f"or srun --nodes={settings.num_nodes} --ntasks-per-node={settings.devices}"
    else:
        return
    if (each, nodes) != (settings.devices, settings.num_nodes):
        raise InputError(
            f"{starter} started {world} process{'' if world == 1 else 'es'} ({each} on each of {nodes}), the recipe "
            f"has trainer.devices={settings.devices} trainer.num_nodes={settings.num_nodes}; "
            f"set trainer.devices={each} trainer.num_nodes={nodes}, {more}"
        )


def cluster_plugins() -> list[Any]:
    """In a Slurm job: none of Lightning's requeueing, which would write a checkpoint in the middle of an epoch."""
    external = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if external else []
