# %% [markdown]
# # Enhancing a recording, step by step
#
# What `fromnoise enhance` does, taken apart: level, front end, start, steps, way back. Run it in the repository's
# folder, where the two recordings are (synthetic speech, clean and in synthetic noise).

# %%
import torch

import fromnoise
from fromnoise.data.audio import read
from fromnoise.evaluation import measure
from fromnoise.samplers import PositionNoise

noisy, rate = read("examples/sounds/noisy.flac")
clean, _ = read("examples/sounds/clean.flac")
noisy, clean = noisy[:1, : 3 * rate], clean[:1, : 3 * rate]
print(f"{noisy.shape[1] / rate:.1f} s at {rate} Hz")


def si_sdr(estimate):
    return measure(clean[0], estimate[0], rate, ["si_sdr"])["si_sdr"]


# %% [markdown]
# ## In one call
#
# SI-SDR compares with the clean recording, in dB; higher is better.

# %%
enhancer = fromnoise.load("enhance-small")
enhanced = enhancer(noisy, sample_rate=rate, seed=0)
print(f"noisy {si_sdr(noisy):.1f} dB, enhanced {si_sdr(enhanced):.1f} dB in {enhancer.network_calls()} network calls")

# %% [markdown]
# ## Its parts
#
# A model is a front end, a process, a network with a way to read its output, a sampler and a time grid. All of it
# stands on the card; `fromnoise models enhance-small` prints that.

# %%
model = enhancer.model
run = model.default_run()
print("front end ", model.frontend)
print("process   ", model.process)
print("prediction", model.denoiser.prediction)
print("sampler   ", run.sampler, "over", run.grid, "in", run.num_steps, "step")

# %% [markdown]
# ## Level and front end
#
# Recordings come at any level; a network is trained at one. The gain is remembered. The front end makes a spectrogram,
# real and imaginary parts as two channels, with magnitudes compressed so that quiet parts count.

# %%
wave = torch.from_numpy(noisy)[None]
gain = model.gain_of(wave)
x_noisy = model.frontend.encode(wave * gain)
print(f"gain {gain.item():.2f}, spectrogram {tuple(x_noisy.shape)}: item, re/im, frequency, frame")

# %% [markdown]
# ## Where the run starts
#
# The path of this process leads from clean speech at t = 0 to the noisy recording at t = 1, so the run starts at the
# recording itself. A process that ends in noise would start there, or in a mixture of the two: `prior` is the call.

# %%
noise = PositionNoise([0])
given = model.given(x_noisy)
start = model.process.prior(given.observation, noise(x_noisy))
print(f"distance of the start from the noisy spectrogram: {(start - x_noisy).abs().max().item():.1e}")

# %% [markdown]
# ## The steps
#
# A sampler asks the denoiser for an estimate of the clean spectrogram and goes a step in its direction. The model's own
# run is one step. Here are four, with the sound of every state on the way.


# %%
def heard(x):
    return (model.frontend.decode(x, noisy.shape[1]) / gain)[0].numpy()


def told(step, of, x):
    print(f"after step {step + 1} of {of}: {si_sdr(heard(x)):5.1f} dB")


with torch.no_grad():
    denoise = model.denoiser.bind(given.observation, given.condition)
    for steps in (1, 4):
        own = model.default_run(num_steps=steps)
        times = own.grid.times(model.process, steps)
        print(f"times {[round(t, 2) for t in times.tolist()]}")
        x = own.sampler.sample(denoise, model.process, start, times, given.observation, noise, callback=told)
        if steps == 1:
            by_hand = heard(x)

# %% [markdown]
# Every state is a sound that can be heard. Four steps end below the single one: this network was trained at t = 1
# alone, and its answers to states on the way are worth less. `fromnoise evaluate --steps 1,2,4` measures that on many
# recordings; a network that was trained along the whole path is another matter.
#
# ## What the command adds
#
# The model's card asks for the mean over four shifts of the sound (`shifts`), which is why the one call above made four
# network calls. Long recordings run in overlapping pieces, other rates are converted, and silence stays silence.

# %%
print(f"one run by hand {si_sdr(by_hand):.2f} dB, the mean over shifts {si_sdr(enhanced):.2f} dB")
