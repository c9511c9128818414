# %% [markdown]
# # Any process, any network, any sampler
#
# A process says how data becomes noise, `x_t = clean(t) x0 + cond(t) y + noise(t) z`. A network says which data x_t may
# have come from. A sampler goes from noise to data by asking it. None of the three knows the others, so all of them
# combine. Here on toy data, in seconds.

# %%
import torch
from torch.nn.functional import mse_loss

from fromnoise.backbones import ConvNeXtConfig
from fromnoise.denoiser import Denoiser
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import OUVE, VE, VP, Bridge, Flow, VPAngular
from fromnoise.samplers import DDIM, DDPM, DPMpp2M, Heun, PositionNoise, Uniform
from fromnoise.types import Condition, expand

torch.manual_seed(0)

# %% [markdown]
# ## Six processes
#
# The three weights half-way. `ouve` and `bridge` lead to an observation y, the others to pure noise.

# %%
PROCESSES = {
    "vp": VP(),
    "vp_angular": VPAngular(),
    "ve": VE(),
    "flow": Flow(),
    "ouve": OUVE(),
    "bridge": Bridge(),
}
middle = torch.tensor([0.5], dtype=torch.float64)
for name, process in PROCESSES.items():
    w = process.weights(middle)
    print(f"{name:12} clean {w.clean.item():.3f}   cond {w.cond.item():.3f}   noise {w.noise.item():.3f}")

# %% [markdown]
# ## A denoiser that cannot be wrong
#
# Let every number of x0 be drawn from a normal distribution of mean 0.3 and deviation 0.1. Then the best estimate of x0
# from x_t is known, for every process:
#
#     E[x0 | x_t] = mean + k (x_t - cond y - clean mean),    k = clean var / (clean^2 var + noise^2)
#
# So whatever a run gets wrong is the sampler's own error.

# %%
MEAN, DEVIATION = 0.3, 0.1
y = torch.full((4, 1, 4096), 0.5)  # what ouve and bridge lead to; the others have no use for it


def perfect(process):
    def denoise(x, t):
        w = process.weights(t)
        k = w.clean * DEVIATION**2 / ((w.clean * DEVIATION) ** 2 + w.noise**2)
        centre = expand(w.clean, x) * MEAN + process.observe(w.cond, y)
        return (MEAN + expand(k, x) * (x - centre)).to(x.dtype)

    return denoise


# %% [markdown]
# Every sampler over every process, 64 steps: mean and deviation of what comes out. They should be 0.30 and 0.10. A
# bridge starts at y itself, so all that varies is the noise that a sampler adds: those that add none give the mean,
# with a deviation of 0. Heun follows the slope of the path, which a bridge has not at its very end: hence the dash.

# %%
SAMPLERS = {"ddim": DDIM(), "ddpm": DDPM(), "dpmpp_2m": DPMpp2M(), "heun": Heun()}


def run(process, sampler, steps):
    noise = PositionNoise(range(len(y)))
    times = Uniform().times(process, steps)
    start = process.prior(y, noise(y))
    return sampler.sample(perfect(process), process, start, times, y, noise)


table = {}
print(f"{'':12}" + "".join(f"{name:>14}" for name in SAMPLERS))
for name, process in PROCESSES.items():
    cells = []
    for sampler_name, sampler in SAMPLERS.items():
        try:
            x = run(process, sampler, steps=64)
        except ValueError:
            cells.append("-")
            continue
        table[name, sampler_name] = (x.mean().item(), x.std().item())
        cells.append("{:.3f}, {:.3f}".format(*table[name, sampler_name]))
    print(f"{name:12}" + "".join(f"{cell:>14}" for cell in cells))

# %% [markdown]
# ## How few steps will do
#
# The error of the deviation, on the flow. Once the steps are small, a method of first order halves its error when they
# double, and one of second order quarters it.

# %%
print(f"{'steps':>12}" + "".join(f"{steps:>10}" for steps in (4, 8, 16, 32)))
for sampler_name in ("ddim", "heun", "dpmpp_2m"):
    errors = [abs(run(Flow(), SAMPLERS[sampler_name], steps).std().item() - DEVIATION) for steps in (4, 8, 16, 32)]
    print(f"{sampler_name:>12}" + "".join(f"{error:10.5f}" for error in errors))

# %% [markdown]
# ## A network in place of the formula
#
# The data now are tones of random pitch and phase, and a small network learns to tell them from noise. Process and
# prediction are swapped without touching it.


# %%
def tones(count):
    pitch = 0.05 + 0.1 * torch.rand(count, 1, 1)
    return torch.sin(2 * torch.pi * (pitch * torch.arange(64) + torch.rand(count, 1, 1)))


def train(process, prediction, steps=120):
    torch.manual_seed(0)
    network = ConvNeXtConfig(features=1, width=24, layers=3, kernel=9, signal=False).build()
    denoiser = Denoiser(network, process, prediction)
    objective = Objective()
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        x0 = tones(32)
        draw = objective.draw(process, prediction, x0, None, None)
        loss = objective.losses(denoiser, x0, None, Condition(), draw).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return denoiser.eval(), losses


trained = {}
for name, prediction in (("flow", "velocity"), ("vp_angular", "velocity"), ("vp_angular", "clean")):
    denoiser, losses = train(PROCESSES[name], PREDICTIONS[prediction]())
    trained[name, prediction] = denoiser, losses
    print(f"{name:12} {prediction:10} loss {sum(losses[:10]) / 10:.3f} -> {sum(losses[-10:]) / 10:.3f}")

# %% [markdown]
# How much of the noise each one takes off, half-way along the path: the error of its estimate, and that of guessing the
# mean, which is 0 for a tone.

# %%
x0 = tones(64)
for (name, prediction), (denoiser, _) in trained.items():
    process, t = PROCESSES[name], torch.full((64,), 0.5)
    x_t = process.sample(x0, t, None, torch.randn(x0.shape))
    with torch.no_grad():
        estimate = denoiser(x_t, t, None, Condition())
    print(f"{name:12} {prediction:10} {mse_loss(estimate, x0):.3f} where guessing has {x0.square().mean():.3f}")

# %% [markdown]
# And new tones out of noise, by a sampler that it was not trained for. Nothing has to be told of that.

# %%
denoiser, _ = trained["flow", "velocity"]
noise = PositionNoise([0, 1])
with torch.no_grad():
    start = noise(torch.zeros(2, 1, 64))
    made = DPMpp2M().sample(denoiser.bind(None, Condition()), Flow(), start, Uniform().times(Flow(), 12))
print("level of two new tones:", [f"{tone.std().item():.2f}" for tone in made], "where the data have 0.71")
