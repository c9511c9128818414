"""Exported models: the runner's numpy equals torch part by part, whole runs equal, and torch is not imported."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import fromnoise
from fromnoise import hub, runner
from fromnoise.denoiser import Denoiser
from fromnoise.export import TOLERANCE, check, export, plan, plans
from fromnoise.export.networks import Plain, traced
from fromnoise.export.plans import Called
from fromnoise.export.tape import Recorded, Settling, Tape
from fromnoise.frontends import STFT, Magnitude, Mel
from fromnoise.frontends.mel import filterbank
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import VP, Bridge, Flow, Mixing
from fromnoise.runner import fronts, pieces
from fromnoise.runner.engine import Folder
from fromnoise.runner.noise import position_noise
from fromnoise.runner.program import execute
from fromnoise.runner.tasks import helmert, item_seed, local_level
from fromnoise.samplers import SAMPLERS, PositionNoise, PredictorCorrector, Sampler, Trained, Uniform
from fromnoise.tasks import (
    EnhancementConfig,
    EnhancementModel,
    Enhancer,
    GenerationConfig,
    GenerationModel,
    Generator,
    SeparationConfig,
    SeparationModel,
    Separator,
    Vocoder,
    VocodingModel,
    generation_model,
    sources,
)
from fromnoise.tasks.base import joined
from fromnoise.tasks.following import match_sources
from fromnoise.types import Condition, InputError
from tests import tiny_vocoders
from tests.conftest import TINY

RATE = 8000


class Direct(Folder):
    """An export whose networks were not written: they are called as they are, so that only the rest is compared."""

    def __init__(self, folder: Path, made: plans.Plan) -> None:
        super().__init__(folder)
        self.made = made

    def network(self, role: str):
        called = self.made.networks.get(role)
        return None if called is None else lambda given: direct(called, given)


def direct(called: Called, given) -> np.ndarray:
    tensors = [torch.from_numpy(np.ascontiguousarray(given[name])) for name in ("x", "t", *called.told)]
    with torch.inference_mode():
        return Plain(called.network, tuple(called.told))(*tensors).numpy()


@pytest.fixture
def beside(tmp_path: Path, monkeypatch):
    """The function (ready model, options of the export) -> its runner, with torch's networks."""

    def make(ready, **options) -> runner.Runner:
        monkeypatch.setattr("fromnoise.export.traced", lambda called, what: (None, None))
        monkeypatch.setattr("fromnoise.export.write", lambda program, called, path: path.touch())
        made = export(ready, tmp_path / "out", **options)
        return runner.TASKS[ready.task](Direct(tmp_path / "out", made))

    return make


def sound(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (channels, n) if channels > 1 else (n,)
    return (0.1 * random.standard_normal(shape)).astype(np.float32)


def shaken(model: nn.Module) -> nn.Module:
    """Weights that say something, also where a network starts with zeros; the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("seed", "draws", "shape", "offset"), [(0, 1, (1, 2, 7), 0), (2**63 + 5, 3, (2, 1, 3, 5), 999)]
)
def test_noise_is_that_of_torch_to_the_bit(seed, draws, shape, offset):
    seeds = [seed + i for i in range(shape[0])]
    noise = PositionNoise(seeds, offset)
    for draw in range(draws):
        assert np.array_equal(noise(torch.zeros(shape)).numpy(), position_noise(seeds, draw, shape, offset))


@pytest.mark.parametrize("n", [1, 2, 700, 1601])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": "sqrt_hann", "transform": "none", "factor": 0.3},
        {"n_fft": 510, "hop": 128, "padding": "constant", "factor": 0.15},
        {"transform": "log", "n_fft": 256, "hop": 64},
    ],
)
def test_spectra_and_their_inverse_are_those_of_torch(n, changes):
    ours = STFT(**changes)
    other = fronts.front({"name": "stft", **dataclasses.asdict(ours)})
    wave = sound(n, 2)[None]
    x = ours.encode(torch.from_numpy(wave)).numpy()
    assert other.shape(n) == ours.shape(1, n)
    # A bin that should be 0 holds rounding of some 1e-7, of which the power 0.5 makes some 3e-4.
    np.testing.assert_allclose(other.encode(wave), x, atol=1e-3)
    np.testing.assert_allclose(other.decode(x, n), ours.decode(torch.from_numpy(x), n).numpy(), atol=2e-6)


@pytest.mark.parametrize("n", [300, 2000])
def test_magnitudes_are_those_of_torch(n):
    ours = Magnitude(2000, n_fft=64, hop=32, iterations=3)
    other = fronts.Magnitude({"name": "magnitude", **dataclasses.asdict(ours)})
    wave = sound(n)[None, None]
    x = ours.encode(torch.from_numpy(wave)).numpy()
    assert other.shape(n) == x.shape[1:]
    np.testing.assert_allclose(other.encode(wave), x, atol=1e-3)  # the logarithm of bins near the floor
    np.testing.assert_allclose(other.decode(x, n), ours.decode(torch.from_numpy(x), n).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "definition",
    [
        tiny_vocoders.MEL,
        Mel(2000, 64, 16, 48, 8, fmax=None, log="10", multiplier=20.0, low=-80.0, high=20.0, normalized=True),
        Mel(2000, 64, 32, 64, 8, fmax=None, power=2.0, log="none", padding="constant", centered=False),
    ],
)
def test_mels_are_those_of_torch(definition):
    other = fronts.Mel(dataclasses.asdict(definition), filterbank(definition))
    wave = sound(1999)[None]
    wanted = definition.encode(torch.from_numpy(wave)[None]).numpy()
    np.testing.assert_allclose(other.encode(wave), wanted, rtol=1e-4, atol=1e-5)
    if definition.power == 1 and definition.hop == 32:
        ours = Magnitude(2000, n_fft=64, hop=32)
        x = ours.from_mel(definition, torch.from_numpy(wanted)).numpy()
        given = fronts.Magnitude({"name": "magnitude", **dataclasses.asdict(ours)}).from_mel(other, wanted)
        np.testing.assert_allclose(given, x, atol=1e-4)


@pytest.mark.parametrize(
    ("total", "overlap", "context", "align"), [(1000, 0, 0, 1), (999, 30, 40, 16), (64, 30, 40, 16)]
)
def test_pieces_are_cut_and_joined_as_in_torch(total, overlap, context, align):
    cut = pieces.lengths(0.05, overlap / RATE, context, align, RATE)
    data = sound(total, 2)

    def process(wave: np.ndarray, start: int) -> np.ndarray:
        return (wave * (1 + start % 7)).astype(np.float32)

    assert np.array_equal(pieces.in_pieces(process, data, cut), joined(process, data, cut))


def test_sources_follow_those_of_the_piece_before():
    earlier = sound(100, 3)
    later = earlier[[2, 0, 1]] + 0.3 * sound(100, 3, 1)
    assert pieces.follow(earlier, later) == match_sources(earlier, later, 3)[0] == [1, 2, 0]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_basis_and_local_level_are_those_of_torch(count):
    wave = torch.from_numpy(sound(500, count))[None]
    np.testing.assert_allclose(helmert(count) @ wave.numpy(), sources.to_basis(wave).numpy(), atol=1e-7)
    for window in (7, 8):
        level = sources.local_level(wave[:, :1], window).numpy()
        np.testing.assert_allclose(local_level(wave[:, :1].numpy(), window), level, rtol=1e-5)
    assert item_seed(3, 4) == generation_model.item_seed(3, 4)


PROCESSES = {
    "vp": (VP(num_steps=8), Trained(), "noise", 1),
    "flow": (Flow("observation", 0.5), Uniform(), "velocity", 1),
    "bridge": (Bridge(), Uniform("t_min"), "clean", 1),
    "mixing": (Mixing(), Uniform(), "score", 2),
}
SINGULAR = {("flow", "pc"), ("bridge", "pc"), ("bridge", "euler"), ("bridge", "heun"), ("bridge", "supportive")}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_as_sums_is_the_run(process, sampler):
    path, grid, prediction, channels = PROCESSES[process]
    if (process, sampler) in SINGULAR:
        pytest.skip("the slope, or clean_s/clean_t, is infinite at the start, in torch as well")
    chosen, shape = SAMPLERS[sampler](), (1, channels, 40)
    times = grid.times(path, 4)
    y = torch.from_numpy(sound(40, channels)).reshape(shape)

    class Toy(nn.Module):
        def forward(self, x, t, condition):
            return 0.3 * torch.sin(3 * x) + 0.1 * condition.signal * t.reshape(-1, 1, 1)

    def run(network: nn.Module, y, noise, sampler: Sampler):
        denoise = Denoiser(network, path, PREDICTIONS[prediction]()).bind(y, Condition(signal=y))
        return sampler.sample(denoise, path, path.prior(y, noise(y)), times, y, noise)

    wanted = run(Toy(), y, PositionNoise([5]), chosen).numpy()
    with Tape(1, 80, channels) as tape:
        program = tape.finished(run(Recorded(tape), tape.value(0), tape.noise, Settling(chosen, tape)))

    def call(x, time, gain):
        return [(0.3 * np.sin(3 * x) + 0.1 * np.float32(gain * time) * y.numpy()).astype(np.float32)]

    program = json.loads(json.dumps(program))
    told = {step["time"] for step in program["steps"] if step["op"] == "call"}
    scale = path.network_time(torch.tensor([1.0], dtype=torch.float64)).item()
    assert max(told) == pytest.approx(scale)
    got = execute(program, [y.numpy()], call, lambda draw: position_noise([5], draw, shape))
    # float32 on both sides, with sums in another order; a score or noise is magnified where clean is small
    np.testing.assert_allclose(got, wanted, atol=5e-5 * max(1, np.abs(wanted).max()))


def test_what_is_no_sum_is_refused():
    path, times = VP(num_steps=8), Trained().times(VP(num_steps=8), 3)
    chosen = PredictorCorrector(corrector="langevin")
    with Tape(1, 80) as tape, pytest.raises(InputError, match="cannot be exported: between two network calls it uses"):
        denoise = Denoiser(Recorded(tape), path, PREDICTIONS["noise"]()).bind(None, Condition())
        chosen.sample(denoise, path, tape.noise(tape.value(0)), times, None, tape.noise)


WAVES = {"name": "wavenet", "residual_channels": 4, "skip_channels": 4, "num_layers": 2, "signal_channels": 1,
         "embed_in": 8, "embed_mid": 8, "embed_out": 8}  # fmt: skip
ENHANCERS = {
    "shifted": {"shifts": 3},
    "bridge": {"process": {"name": "bridge"}, "sampler": {"name": "ddpm"}, "grid": {"name": "uniform", "end": "t_min"},
               "num_steps": 3, "unit": "peak", "frame_multiple": 4, "frame_padding": "reflection"},
    "refined": {"process": {"name": "vp", "num_steps": 6}, "prediction": {"name": "noise"}, "sampler": {"name": "ddpm"},
                "grid": {"name": "trained"}, "num_steps": 4, "generator": TINY, "refiner": TINY, "guidance": 0.3,
                "start": "condition", "refine_with_noisy": 0.25},
    "zeta": {"process": {"name": "vp", "num_steps": 6}, "prediction": {"name": "noise"}, "sampler": {"name": "ddpm"},
             "grid": {"name": "trained"}, "num_steps": 3, "generator": TINY, "refiner": {"name": "generator"},
             "guidance": 0.3, "guidance_rule": "zeta", "guidance_level": "reached", "unit": "none"},
    "wave": {"frontend": {"name": "wave"}, "backbone": WAVES, "process": {"name": "interpolating", "num_steps": 6,
             "betas": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}, "prediction": {"name": "combined"}, "unit": "peak",
             "sampler": {"name": "supportive"}, "grid": {"name": "trained"}, "num_steps": 4, "start": "noisy",
             "clamp": True, "keep_noisy": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("kind", ENHANCERS)
def test_an_enhancer_without_torch_sounds_the_same(kind, beside):
    model = shaken(EnhancementModel(EnhancementConfig(**{"backbone": TINY, **ENHANCERS[kind]})))
    ready = Enhancer(model, kind)
    other = beside(ready)
    noisy = sound(30011, 2)
    noisy[1, :] *= 3
    short = {"segment": 0.4, "overlap": 0.03, "seed": 7}  # several pieces, cross-faded
    np.testing.assert_allclose(other(noisy, 44100, **short), ready(noisy, 44100, **short), atol=1e-4)
    assert np.array_equal(other(np.zeros(99, np.float32), 16000), np.zeros(99, np.float32))


def test_another_run_can_be_exported(beside):
    ready = Enhancer(shaken(EnhancementModel(EnhancementConfig(backbone=TINY, process={"name": "flow"}))), "x")
    noisy = sound(4000)
    wanted = ready(noisy, 16000, steps=3, sampler="heun")
    np.testing.assert_allclose(beside(ready, steps=3, sampler="heun")(noisy, 16000), wanted, atol=1e-4)
    assert np.abs(ready(noisy, 16000) - wanted).max() > 1e-2


@pytest.mark.parametrize(
    "changes",
    [
        {"shifts": 2, "consistent": True, "sampler": {"name": "ddpm"}, "num_steps": 2},
        {"level": "local", "level_window": 65, "prediction": {"name": "score"}, "levels": "match", "center": False},
        {"levels": "none", "process": {"name": "mixing", "sources": 3}, "sources": 3},
    ],
)
def test_a_separator_without_torch_sounds_the_same(changes, beside):
    count = changes.get("sources", 2)
    network = {"name": "maskconv", "bins": 33, "sources": count, "width": 8, "layers": 2, "attention": 0}
    stft = {"name": "stft", "n_fft": 64, "hop": 32, "padding": "constant", "transform": "none"}
    backbone = {"name": "spectral", "network": network, "stft": stft, "multiple": 4}
    ready = Separator(shaken(SeparationModel(SeparationConfig(backbone=backbone, **changes))), "tiny")
    other = beside(ready)
    mixture = sound(6000) * np.linspace(0.2, 2, 6000, dtype=np.float32)
    short = {"segment": 0.4, "overlap": 0.1, "seed": 3}
    wanted = ready(mixture, RATE, **short)
    np.testing.assert_allclose(other(mixture, RATE, **short), wanted, atol=2e-5 * max(1, np.abs(wanted).max()))
    assert other(np.zeros(50, np.float32), RATE).shape == (count, 50)


@pytest.mark.parametrize("kind", ["wavenet", "magnitude"])
def test_a_vocoder_without_torch_sounds_the_same(kind, beside):
    config = dataclasses.replace(tiny_vocoders.configs()[kind], prior="unit", clamp=kind == "wavenet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ready = Vocoder(shaken(VocodingModel(config)), kind)
    other = beside(ready)
    mel = ready.mel(sound(5000), tiny_vocoders.RATE)
    wanted = ready(mel, seed=2, segment=0.5)
    # Griffin-Lim magnifies rounding: torch in float32 and in float64 differ by as much.
    tolerance = 1e-4 if kind == "wavenet" else 2e-3
    np.testing.assert_allclose(other(mel, seed=2, segment=0.5), wanted, atol=tolerance)
    if kind == "wavenet":
        assert np.abs(wanted).max() == 1  # the clamp was at work


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_a_generator_without_torch_sounds_the_same(guidance, beside):
    backbone = {"name": "wavenet", "residual_channels": 4, "skip_channels": 4, "num_layers": 2, "vector_dim": 6,
                "embed_in": 8, "embed_mid": 8, "embed_out": 8}  # fmt: skip
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 1000}, backbone=backbone, process={"name": "vp", "num_steps": 20},
        num_steps=5, labels=("a", "b"), label_dim=6, clamp=True,
    )  # fmt: skip
    ready = Generator(shaken(GenerationModel(config)), "tiny")
    other = beside(ready, guidance=guidance)
    for label in ("b", None):
        wanted = ready(2, label, seed=4, seconds=0.3, first=1, guidance=guidance if label else None)
        np.testing.assert_allclose(other(2, label, seed=4, seconds=0.3, first=1), wanted, atol=1e-4)
    with pytest.raises(ValueError, match="no label 'c'; this model has: a, b"):
        other(1, "c")


def test_what_the_runner_cannot_do_is_named():
    energy = tiny_vocoders.vocoder("wavenet")
    with pytest.raises(InputError, match="cannot do what 'wavenet' asks for by: prior"):
        plan(energy)
    with pytest.raises(
        InputError, match="for the task 'classify', which has no exported runner; there is one for: enhance"
    ):
        plan(fromnoise.load("digits-classifier"))
    with pytest.raises(InputError, match="--guidance is for generators"):
        plan(tiny_vocoders.vocoder("magnitude"), guidance=2.0)


class Counts(nn.Module):
    """The number of items becomes a Python number."""

    def forward(self, x, t, condition):
        return x * len(x) + t.reshape(-1, 1, 1)


class Lengths(nn.Module):
    """So does the length."""

    def forward(self, x, t, condition):
        return x * int(x.shape[-1])


def test_a_network_for_one_item_only_is_said_to_be_and_one_for_one_length_refused():
    x = torch.randn(2, 1, 32)
    program, items = traced(Called(Counts(), x, {}), "counts")
    assert items == 1
    assert torch.equal(program.module()(torch.ones(1, 1, 50), torch.zeros(1)), torch.ones(1, 1, 50))
    with pytest.raises(InputError, match="lengths: this network can be traced for one length only"):
        traced(Called(Lengths(), x, {}), "lengths")


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "jaxtyping", "safetensors", "huggingface_hub", "typer", "rich", "onnx"}:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)
sys.meta_path.insert(0, Absent())
from fromnoise.runner.__main__ import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


def without_torch(*args: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_TORCH, *args]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_a_file_through_onnx_without_torch_is_that_of_torch(tiny_models, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ready = fromnoise.load(tiny_models["bridge"])
    made = export(ready, tmp_path / "out")
    found = check(ready, made, tmp_path / "out")
    assert len(found) == 4
    assert max(found.values()) < TOLERANCE / 10
    noisy = sound(9000, 2)
    soundfile.write(tmp_path / "in.wav", noisy.T, 22050, subtype="FLOAT")
    told = without_torch(
        str(tmp_path / "out"), str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--seed", "3"
    )
    assert told.returncode == 0, told.stderr
    clean, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    wanted = ready(noisy, 22050, seed=3)
    assert rate == 22050
    # Written with 16 bits, and made quieter where it would go beyond full scale.
    np.testing.assert_allclose(clean.T, wanted / max(np.abs(wanted).max(), 1), atol=1e-4)
    told = without_torch(str(tmp_path), "in.wav", "-o", "out.wav")
    assert told.returncode == 2
    assert "holds no runner.json; make it by: fromnoise export" in told.stderr


@pytest.mark.slow
def test_enhance_small_through_onnx_is_that_of_torch(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ready = fromnoise.load("enhance-small")
    assert ready.model.config.shifts == 4
    made = export(ready, tmp_path)
    assert max(check(ready, made, tmp_path).values()) < TOLERANCE
    hub.save_pretrained(ready, tmp_path / "model")  # the export left the model as it was
    assert not any(value.is_meta for value in ready.model.state_dict().values())
