"""The same model, times and noise through Hugging Face's schedulers and ours: equal to 1e-5.

Their schedules are float32; ours float64. Models are closed-form, so that both evaluate the very same function.
"""

import pytest
import torch

from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import VP
from fromnoise.samplers import DDIM, DDPM, DPMpp2M

diffusers = pytest.importorskip("diffusers", reason="the oracle is not installed")

STEPS, SHAPE = 12, (2, 3, 16)
NAMES = {"noise": "epsilon", "clean": "sample", "velocity": "v_prediction"}


def network(x, step):
    """Any smooth function of the state and the step."""
    return 0.7 * torch.tanh(x) + 0.1 * torch.sin(3 * x) + 0.002 * step


def theirs(scheduler, x, generator):
    takes_generator = {"generator": generator}
    for step in scheduler.timesteps:
        out = network(x, float(step))
        x = scheduler.step(out, step, x, **takes_generator).prev_sample
    return x


def ours(sampler, process, prediction, steps, x, generator):
    times = torch.tensor([*((n + 1) / process.num_steps for n in steps), 0.0], dtype=torch.float64)
    read = PREDICTIONS[prediction]()

    def denoise(x, t):
        return read.to_clean(network(x, float(process.network_time(t)[0].round())), x, t, process)

    return sampler.sample(
        denoise, process, x, times, noise=lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)
    )


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("name", ["ddpm", "ddim", "ddim_eta", "dpmpp_2m"])
def test_agrees_with_diffusers(name, prediction):
    process = VP(beta_min=1e-4, beta_max=0.02, num_steps=1000)
    schedule = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": NAMES[prediction],
    }
    if name == "ddpm":
        scheduler, sampler = diffusers.DDPMScheduler(**schedule, clip_sample=False), DDPM()
    elif name == "dpmpp_2m":
        scheduler, sampler = diffusers.DPMSolverMultistepScheduler(**schedule), DPMpp2M()
    else:
        scheduler, sampler = diffusers.DDIMScheduler(**schedule, clip_sample=False), DDIM()
    scheduler.set_timesteps(STEPS)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if name == "ddim_eta":
        sampler = DDIM(eta=0.6)
        step = scheduler.step
        scheduler.step = lambda *args, **kwargs: step(*args, **kwargs, eta=0.6)
    expected = theirs(scheduler, x, torch.Generator().manual_seed(1))
    actual = ours(sampler, process, prediction, scheduler.timesteps.tolist(), x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-5)
