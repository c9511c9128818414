"""Published checkpoints through the importers, against outputs of the published code.

The checkpoints are made from the layouts' own name lists (tests/published.py) and the vectors' filling rule. float64:
rtol 1e-9 with atol 1e-10; float32: rtol 1e-4 with atol 1e-5; state-space layers in complex64: 2e-3 of the largest
output, each as the vector's JSON says.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.frontends.mel import MELS, Mel
from fromnoise.importers import LAYOUTS, Asked, Imported, Schedule, import_checkpoints
from fromnoise.processes import PROCESSES
from fromnoise.tasks import TASKS
from fromnoise.types import Condition, InputError, build
from tests import published
from tests.rules import VECTORS

PHILSYN_SMALL = {"embed": (128, 64, 48)}
SASHIMI_SMALL = {"length": 256, "embed": (32, 48, 512)}
# Of each vector: its list of names and shapes, and the shift in its filling rule.
LISTS = {
    "lmnt_diffwave_cond": (published.lmnt(8, 5, 6), 0.1),
    "lmnt_diffwave_uncond": (published.lmnt(8, 5), 0.1),
    "philsyn_uncond_wavenet": (published.philsyn(8, 8, 6, **PHILSYN_SMALL), 0.1),
    "philsyn_vocoder_wavenet": (published.philsyn(8, 6, 5, 80, embed=(16, 24, 20)), 0.1),
    "sashimi_paper_uncond": (published.sashimi("s4_paper", 4, 1, **SASHIMI_SMALL), 0.1),
    "sashimi_v3_uncond": (published.sashimi("s4_v3", 4, 1, **SASHIMI_SMALL), 0.1),
    "sashimi_v3_cond": (published.sashimi("s4_v3", 4, 1, mel=80, factors=(4, 8), **SASHIMI_SMALL), 4.0),
}
CYCLES = {"lmnt": 3, "philsyn_uncond_wavenet": 4, "philsyn_vocoder_wavenet": 3}


def arrays_of(name: str) -> dict[str, np.ndarray]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def state_of(name: str) -> dict[str, Tensor]:
    """The published entries of a vector's network, in float64 where the rule gives them."""
    shapes, shift = LISTS[name]
    given = {key[6:]: torch.from_numpy(value) for key, value in arrays_of(name).items() if key.startswith("param.")}
    ruled = {key: shape for key, shape in shapes.items() if key not in given and not published.is_buffer(key)}
    state = {key: torch.from_numpy(value) for key, value in published.rule(ruled, shift)} | given
    return state | {key: torch.full(shape, 7.0) for key, shape in shapes.items() if key not in state}


def asked_of(name: str) -> Asked:
    """What the shapes of a vector's network do not tell."""
    if name.startswith("sashimi"):
        return Asked({"kernel_length": 256} if "v3" in name else {})
    cycle = CYCLES.get(name, CYCLES["lmnt"])
    return Asked({"dilation_cycle": cycle})


def imported_from(state: dict[str, Tensor], folder: Path, asked: Asked | None = None, **rest: object) -> Imported:
    """Through a file, as published: {"model": ...} for lmnt, {"model_state_dict": ...} for the others."""
    wrapper = "model" if "input_projection.weight" in state else "model_state_dict"
    torch.save({wrapper: state, **rest}, folder / "1000.pkl")
    return import_checkpoints([folder / "1000.pkl"], asked=asked)


def network(imported: Imported, dtype: torch.dtype = torch.float64) -> nn.Module:
    model = TASKS[imported.task][1](imported.config).to(dtype).eval()
    model.load_state_dict({key: value.to(model.state_dict()[key].dtype) for key, value in imported.weights.items()})
    return model.denoiser.backbone


def mel_rule(batch: int, bands: int, frames: int) -> Tensor:
    b, m, w = (torch.arange(float(n), dtype=torch.float64) for n in (batch, bands, frames))
    return -2 + 1.5 * torch.sin(0.4 * m[:, None] + 0.9 * w + 0.7 * b[:, None, None])


def close(result: Tensor, arrays: dict[str, np.ndarray], name: str) -> None:
    limits = {"rtol": 1e-9, "atol": 1e-10} if result.dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    expected = arrays[f"{name}_{'f64' if result.dtype == torch.float64 else 'f32'}"]
    np.testing.assert_allclose(result.detach().numpy(), expected, **limits)


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_are_those_of_the_published_code(name: str) -> None:
    content = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    stored = content.get("stored_parameters", [])
    shapes = {key: list(shape) for key, shape in LISTS[name][0].items()}
    assert set(stored) <= shapes.keys()
    ruled = {key: shape for key, shape in shapes.items() if key not in stored and not published.is_buffer(key)}
    assert ruled == dict(content["parameters"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["lmnt_diffwave_cond", "lmnt_diffwave_uncond"])
def test_lmnt_weights_give_the_published_outputs(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    arrays = arrays_of(name)
    net = network(imported_from(state_of(name), tmp_path, asked_of(name)), dtype)
    x = torch.from_numpy(arrays["audio"]).to(dtype)[:, None]
    told = Condition(frames=torch.from_numpy(arrays["mel"]).to(dtype)) if "mel" in arrays else Condition()
    steps = torch.from_numpy(arrays["steps_int"]).to(dtype)
    close(net(x, steps, told), arrays, "out_int" if "mel" in arrays else "out")
    if "mel" in arrays:
        close(net(x, torch.from_numpy(arrays["step_fractional"]).to(dtype).expand(2), told), arrays, "out_frac")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("includes_step", [True, False])
@pytest.mark.parametrize("name", ["philsyn_vocoder_wavenet", "philsyn_uncond_wavenet"])
def test_philsyn_weights_give_the_published_outputs(
    name: str, includes_step: bool, dtype: torch.dtype, tmp_path
) -> None:
    arrays = arrays_of(name)
    settings = dict(asked_of(name).settings) | ({} if includes_step else {"residual_includes_step": False})
    net = network(imported_from(state_of(name), tmp_path, Asked(settings)), dtype)
    told = Condition(frames=mel_rule(2, 80, 3).to(dtype)) if "vocoder" in name else Condition()
    x, steps = (torch.from_numpy(arrays[key]).to(dtype) for key in ("audio", "steps"))
    close(net(x, steps[:, 0], told), arrays, "out_inplace" if includes_step else "out_fixed")


@pytest.mark.parametrize("name", ["sashimi_paper_uncond", "sashimi_v3_uncond", "sashimi_v3_cond"])
def test_sashimi_weights_give_the_published_outputs(name: str, tmp_path: Path) -> None:
    arrays = arrays_of(name)
    imported = imported_from(state_of(name), tmp_path, asked_of(name))
    assert imported.config.backbone["kernel_length"] == 256
    told = Condition(frames=mel_rule(2, 80, 8).float()) if name.endswith("v3_cond") else Condition()
    x, steps = (torch.from_numpy(arrays[key]).float() for key in ("audio", "steps"))
    result = network(imported, torch.float32)(x, steps[:, 0], told).detach().numpy()
    assert np.abs(result - arrays["out_f32"]).max() <= 2e-3 * np.abs(arrays["out_f32"]).max()


def test_a_v3_kernel_that_ran_is_not_corrected_again(tmp_path: Path) -> None:
    """`after.C` is C after the published code's first call, and `L` the length that says so; the output stays."""
    name, key = "sashimi_v3_uncond", "d_layers.0.layer.kernel.kernel"
    arrays, state = arrays_of(name), state_of(name)
    assert int(state[f"{key}.L"]) == 0
    state |= {f"{key}.{part}": torch.from_numpy(arrays[f"after.{key}.{part}"]) for part in "CL"}
    imported = imported_from(state, tmp_path, asked_of(name))
    assert int(imported.weights["denoiser.backbone.d_layers.0.layer.kernel.L"]) == 256
    x, steps = (torch.from_numpy(arrays[key]).float() for key in ("audio", "steps"))
    result = network(imported, torch.float32)(x, steps[:, 0], Condition()).detach().numpy()
    assert np.abs(result - arrays["out_f32"]).max() <= 2e-3 * np.abs(arrays["out_f32"]).max()


def test_kernels_say_their_length(tmp_path: Path) -> None:
    state = state_of("sashimi_v3_uncond")
    assert imported_from(state, tmp_path).config.backbone["kernel_length"] == 16000  # they never ran: as published
    state["u_layers.3.layer.kernel.kernel.L"] = torch.tensor(256)
    assert imported_from(state, tmp_path).config.backbone["kernel_length"] == 256
    assert imported_from(state_of("sashimi_paper_uncond"), tmp_path).config.backbone["kernel_length"] == 256


@pytest.mark.parametrize("name", LISTS)
def test_import_export_import_is_the_identity(name: str, tmp_path: Path) -> None:
    state, asked = state_of(name), asked_of(name)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    first = imported_from(state, tmp_path, asked)
    exported = LAYOUTS[first.layout].export(network(first, torch.float32))
    assert {key: tuple(value.shape) for key, value in exported.items()} == LISTS[name][0]
    kept = [key for key in state if not key.endswith((".krylov.nodes", ".krylov.z"))]  # those follow from the length
    assert [key for key in kept if not torch.equal(exported[key], state[key])] == []
    assert all(bool(value.isfinite().all()) for value in exported.values())
    second = imported_from(exported, tmp_path, asked)
    assert second.config == first.config
    assert [key for key in first.weights if not torch.equal(first.weights[key], second.weights[key])] == []


def test_exported_frequencies_are_those_of_the_bilinear_transform(tmp_path: Path) -> None:
    imported = imported_from(state_of("sashimi_paper_uncond"), tmp_path)
    exported = LAYOUTS["sashimi"].export(network(imported, torch.float32))
    nodes, z = (torch.view_as_complex(exported[f"d_layers.0.layer.kernel.krylov.{key}"]) for key in ("nodes", "z"))
    k = np.arange(129)
    np.testing.assert_allclose(nodes.numpy(), np.exp(-2j * np.pi * k / 256), atol=1e-6)
    # 2 (1 - w)/(1 + w) = 2i tan(pi k/L); float32's 1 + w loses digits towards k = L/2
    np.testing.assert_allclose(z.numpy()[:128], 2j * np.tan(np.pi * k[:128] / 256), atol=1e-6, rtol=1e-3)


# What was published: list of names, parameters in millions as published and as counted, schedule, task and sizes.
FULL = {
    "vocoder base": (published.philsyn(64, 64, 30, 80), 2_637_305, (50, 0.05), "vocode", {"dilation_cycle": 10}),
    "vocoder large": (published.philsyn(128, 128, 30, 80), 6_914_297, (200, 0.02), "vocode", {"dilation_cycle": 10}),
    "sc09": (published.philsyn(256, 256, 36), 24_071_681, (200, 0.02), "generate", {"dilation_cycle": 12}),
    "wavenet_small": (published.philsyn(128, 256, 30), 6_827_393, (200, 0.02), "generate", {"skip_channels": 256}),
    "deep and thin": (published.philsyn(128, 128, 48), 9_838_337, (200, 0.02), "generate", {"dilation_cycle": 12}),
    "lmnt": (published.lmnt(64, 30, 80), 2_619_971, (50, 0.05), "vocode", {"rising_steps": True}),
    "lmnt large": (published.lmnt(128, 30, 80), 6_885_315, (50, 0.05), "vocode", {"residual_channels": 128}),
    "lmnt free": (published.lmnt(256, 36), 24_034_305, (50, 0.05), "generate", {"mel_bands": 0}),
    "sashimi": (published.sashimi("s4_paper", 128), 22_964_091, (200, 0.02), "generate", {"kind": "s4_paper"}),
    "sashimi_small": (published.sashimi("s4_paper", 64), 7_480_827, (200, 0.02), "generate", {"d_model": 64}),
    "sashimi v3": (published.sashimi("s4_v3", 128), 23_470_971, (200, 0.02), "generate", {"kind": "s4_v3"}),
    "sashimi v3 d32": (published.sashimi("s4_v3", 32, mel=80), 3_153_459, (50, 0.05), "vocode", {"mel_align": "crop"}),
}


@pytest.mark.parametrize("name", FULL)
def test_every_published_network_at_full_size(name: str, tmp_path: Path) -> None:
    """Zeros that share their memory: names, shapes, counts and the card are what is asserted here."""
    shapes, parameters, schedule, task, sizes = FULL[name]
    assert published.num_parameters(shapes) == parameters
    imported = imported_from(published.hollow(shapes), tmp_path)
    outline = imported.outline()
    assert sum(p.numel() for p in outline.parameters()) == parameters
    assert {key: value.shape for key, value in outline.state_dict().items()} == {
        key: value.shape for key, value in imported.weights.items()
    }
    assert imported.task == task
    assert {key: imported.config.backbone[key] for key in sizes} == sizes
    process = build("process", PROCESSES, imported.config.process)
    np.testing.assert_allclose(process.schedule, np.linspace(1e-4, schedule[1], schedule[0]), rtol=1e-12)
    assert imported.config.num_steps == schedule[0]


BASE, FREE = published.philsyn(4, 4, 3, 80), published.philsyn(4, 4, 2)


@pytest.mark.parametrize(
    ("folder", "shapes", "steps", "beta_max"),
    [
        ("ch64_T50_betaT0.05/logs/checkpoint", FREE, 50, 0.05),
        ("ch128_T200_betaT0.02", BASE, 200, 0.02),
        ("wnet_h256_d36_T200_betaT0.02_uncond/checkpoint", FREE, 200, 0.02),
        ("unet_d128_n6_pool_2_expand2_ff2_T40_betaT0.03_uncond", FREE, 40, 0.03),
        ("x_T8_betaT1e-3_L16000_hop256_cond", BASE, 8, 1e-3),
    ],
)
def test_the_schedule_stands_in_the_folder_s_name(
    folder: str, shapes, steps: int, beta_max: float, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    imported = imported_from(published.hollow(shapes), tmp_path / folder)
    process = imported.config.process
    assert (process["num_steps"], process["beta_max"]) == (steps, beta_max)
    assert imported.config.num_steps == steps
    assert not any("betas from" in note for note in imported.notes)


def test_what_nothing_tells_is_noted_and_what_is_said_is_not(tmp_path: Path) -> None:
    imported = imported_from(published.hollow(BASE), tmp_path)
    subjects = ("dilation_cycle=10", "residual_includes_step=true", "trained on T=50", "mels as tacotron2-22k")
    assert [[subject in note for subject in subjects].index(True) for note in imported.notes] == [0, 1, 2, 3]
    assert len(imported.notes) == 4
    asked = Asked(
        {"dilation_cycle": 5, "residual_includes_step": False}, schedule=Schedule(20, 0.05), mel="tacotron2-22k"
    )
    said = imported_from(published.hollow(BASE), tmp_path, asked)
    assert said.notes == ()
    assert said.config.backbone["dilation_cycle"] == 5
    assert said.config.backbone["residual_includes_step"] is False
    assert said.config.process["num_steps"] == 20


def test_a_default_run_of_other_steps(tmp_path: Path) -> None:
    betas = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
    config = imported_from(published.hollow(BASE), tmp_path, Asked(betas=betas)).config
    assert (config.grid, config.num_steps) == ({"name": "levels", "betas": list(betas)}, 6)
    config = imported_from(published.hollow(BASE), tmp_path, Asked(steps=10)).config
    assert (config.grid, config.num_steps) == ({"name": "trained"}, 10)


PHILSYN_JSON = {
    "diffusion_config": {"T": 40, "beta_0": 0.0002, "beta_T": 0.05},
    "wavenet_config": {"res_channels": 4, "num_res_layers": 3, "dilation_cycle": 6},
    "trainset_config": {"sampling_rate": 24000, "filter_length": 2048, "hop_length": 256, "win_length": 1200}
    | {"mel_fmin": 40.0, "mel_fmax": 12000.0},
}


@pytest.mark.parametrize("beside", [True, False])
def test_a_configuration_of_philsyn_is_followed(beside: bool, tmp_path: Path) -> None:
    path = tmp_path / ("config.json" if beside else "mine.json")
    path.write_text(json.dumps(PHILSYN_JSON), encoding="utf-8")
    torch.save({"model_state_dict": published.hollow(BASE)}, tmp_path / "1.pkl")
    imported = import_checkpoints([tmp_path / "1.pkl"], config=None if beside else path)
    assert imported.config.backbone["dilation_cycle"] == 6
    assert imported.config.process == {"name": "vp", "num_steps": 40, "beta_min": 2e-4, "beta_max": 0.05}
    mel = build("mel", {"mel": Mel}, imported.config.mel)
    assert mel == Mel(sample_rate=24000, n_fft=2048, hop=256, win=1200, fmin=40.0, fmax=12000.0)
    assert imported.sample_rate == 24000
    assert len(imported.notes) == 1  # residual_includes_step
    path.write_text(json.dumps(PHILSYN_JSON | {"wavenet_config": {"res_channels": 64}}), encoding="utf-8")
    with pytest.raises(InputError, match="the configuration says res_channels=64, the checkpoint has 4"):
        import_checkpoints([tmp_path / "1.pkl"], config=path)


def test_another_project_s_config_beside_the_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    assert imported_from(published.hollow(BASE), tmp_path).config.num_steps == 50
    with pytest.raises(InputError, match="no configuration: expected an object with one of diffusion_config"):
        import_checkpoints([tmp_path / "1000.pkl"], config=tmp_path / "config.json")


def test_free_generation_of_philsyn_is_one_second_at_16_khz(tmp_path: Path) -> None:
    config = imported_from(published.hollow(FREE), tmp_path).config
    assert (config.frontend, config.seconds, config.labels) == ({"name": "wave", "sample_rate": 16000}, 1.0, ())
    assert imported_from(published.hollow(FREE), tmp_path, Asked(sample_rate=8000, seconds=2.0)).config.seconds == 2.0


@pytest.mark.parametrize("factors", [(16, 16), (11, 25), (32, 64)])
def test_the_hop_is_that_of_the_upsampler(factors: tuple[int, int], tmp_path: Path) -> None:
    imported = imported_from(published.hollow(published.philsyn(4, 4, 3, 80, factors=factors)), tmp_path)
    assert imported.config.backbone["mel_upsample"] == list(factors)
    assert imported.config.mel["hop"] == math.prod(factors)


LMNT = published.lmnt(4, 3, 80)


def test_lmnt_params_say_schedule_cycle_and_mel(tmp_path: Path) -> None:
    params = {
        "residual_channels": 4,
        "residual_layers": 3,
        "dilation_cycle_length": 2,
        "n_mels": 80,
        "hop_samples": 256,
    }
    params |= {"sample_rate": 24000, "n_fft": 2048, "noise_schedule": np.linspace(1e-4, 0.02, 25).tolist()}
    rest = {"step": 7, "optimizer": {"state": {}, "param_groups": []}, "params": params, "scaler": {}}
    imported = imported_from(published.hollow(LMNT), tmp_path, **rest)
    assert imported.notes == ()
    assert imported.config.backbone["dilation_cycle"] == 2
    assert imported.config.process == {"name": "vp", "num_steps": 25, "beta_min": 1e-4, "beta_max": 0.02}
    assert build("mel", {"mel": Mel}, imported.config.mel) == Mel(
        **vars(MELS["diffwave-lmnt-22k"]) | {"sample_rate": 24000, "n_fft": 2048}
    )
    assert imported.config.clamp
    uneven = [1e-4, 1e-3, 0.05]
    rest["params"] = params | {"noise_schedule": uneven}
    assert imported_from(published.hollow(LMNT), tmp_path, **rest).config.process == {"name": "vp", "betas": uneven}
    rest["params"] = params | {"residual_channels": 64}
    with pytest.raises(InputError, match="its params say residual_channels=64, its weights are for 4"):
        imported_from(published.hollow(LMNT), tmp_path, **rest)


def test_lmnt_without_params_is_as_released(tmp_path: Path) -> None:
    imported = imported_from(published.hollow(LMNT), tmp_path)
    assert build("mel", {"mel": Mel}, imported.config.mel) == MELS["diffwave-lmnt-22k"]
    assert imported.config.backbone["dilation_cycle"] == 10
    assert [note.split(",")[0].split(" ")[0] for note in imported.notes] == ["dilation_cycle=10", "trained", "mels"]


def test_early_lmnt_projections_are_convolutions(tmp_path: Path) -> None:
    state = published.filled(LMNT)
    steps = [key for key in state if key.endswith("weight") and "diffusion" in key]
    assert len(steps) == 5
    early = (
        state | {key: state[key][..., None] for key in steps} | {"diffusion_embedding.embedding": torch.ones(50, 128)}
    )
    now, then = (imported_from(entries, tmp_path).weights for entries in (state, early))
    assert [key for key in now if not torch.equal(now[key], then[key])] == []


def test_a_last_residual_convolution_that_is_missing_becomes_zero(tmp_path: Path) -> None:
    """No output depends on it."""
    name = "philsyn_uncond_wavenet"
    arrays, state = arrays_of(name), state_of(name)
    last = [key for key in state if ".5.res_conv" in key]
    assert len(last) == 3
    net = network(imported_from({k: v for k, v in state.items() if k not in last}, tmp_path, asked_of(name)))
    x, steps = (torch.from_numpy(arrays[key]) for key in ("audio", "steps"))
    close(net(x, steps[:, 0], Condition()), arrays, "out_inplace")


@pytest.mark.parametrize("wrapper", ["model_state_dict", "model", "state_dict", None])
def test_weights_are_found_wherever_they_stand(wrapper: str | None, tmp_path: Path) -> None:
    state = published.filled(LMNT)
    prefixed = {f"module.{key}": value for key, value in state.items()}
    torch.save({wrapper: prefixed, "step": 3} if wrapper else prefixed, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    first, second = (import_checkpoints([tmp_path / f"a.{kind}"]) for kind in ("pt", "safetensors"))
    assert first.layout == second.layout == "lmnt"
    assert [key for key in first.weights if not torch.equal(first.weights[key], second.weights[key])] == []


def test_the_average_of_three_checkpoints(tmp_path: Path) -> None:
    shapes = published.philsyn(4, 4, 2)
    states = [published.filled(shapes, shift) for shift in (0.1, 0.2, 0.7)]
    for i, state in enumerate(states):
        torch.save({"model_state_dict": state}, tmp_path / f"{i}.pkl")
    files = [tmp_path / f"{i}.pkl" for i in range(3)]
    imported = import_checkpoints(files, average=True)
    exported = LAYOUTS["philsyn"].export(network(imported, torch.float32))
    for key, value in exported.items():
        np.testing.assert_allclose(value.numpy(), sum(state[key].double().numpy() for state in states) / 3, rtol=1e-6)
    assert imported.files == tuple(files)
    with pytest.raises(InputError, match="expected one checkpoint, got 3; add --average"):
        import_checkpoints(files)
    torch.save({"model_state_dict": published.filled(published.philsyn(4, 4, 3))}, files[2])
    with pytest.raises(InputError, match=r"2\.pkl has other entries than .*0\.pkl"):
        import_checkpoints(files, average=True)


def without(shapes: published.Shapes, part: str) -> dict[str, Tensor]:
    return {key: value for key, value in published.hollow(shapes).items() if part not in key}


SMALL_SASHIMI = published.sashimi("s4_paper", 4, 1, **SASHIMI_SMALL)
BAD = {
    "an entry missing": (
        without(LMNT, "residual_layers.1.dilated_conv.bias"),
        "lacks 1 entries, e.g. 'residual_layers.1",
    ),
    "the first missing": (without(BASE, "init_conv.0.conv.weight_v"), "lacks the entry 'init_conv.0.conv.weight_v'"),
    "a block missing": (without(SMALL_SASHIMI, "u_layers.1."), "e.g. 'u_layers.1."),
    "an entry too many": (
        published.hollow(LMNT) | {"extra.weight": torch.ones(1)},
        "holds 1 entries .* 'extra.weight'",
    ),
    "another shape": (published.hollow(BASE) | {"final_conv.2.conv.bias": torch.ones(2)}, "1 of another shape"),
    "another number of axes": (
        published.hollow(BASE) | {"init_conv.0.conv.weight_v": torch.ones(2)},
        "expected 3 axes",
    ),
    "stereo": (published.hollow(BASE) | {"final_conv.2.conv.weight": torch.ones(2, 4, 1)}, "gives 2 channels"),
    "not finite": (published.filled(LMNT) | {"output_projection.bias": torch.tensor([math.nan])}, "NaN or infinity"),
    "one direction": (without(SMALL_SASHIMI, ".kernel2."), "look in one direction only"),
    "a number too high": (
        published.hollow(FREE) | {"residual_layer.residual_blocks.99999999999.x": torch.ones(1)},
        "is number 99999999999 of its kind; expected fewer than 10000",
    ),
    "of no layout": (
        {"conv.weight": torch.ones(1)},
        "of no known layout: its entries begin 'conv.weight'; known are phil",
    ),
    "no tensors": ({"conv.weight": "text"}, "holds no named tensors, only: model_state_dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_the_entries_is_named(case: str, tmp_path: Path) -> None:
    state, sentence = BAD[case]
    with pytest.raises(InputError, match=rf"1000\.pkl.*{sentence}"):
        imported_from(state, tmp_path)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked({"dilation_cylce": 3}), "has no setting 'dilation_cylce'; it has: .*dilation_cycle"),
        (Asked({"dilation_cycle": "ten"}), "dilation_cycle must be a whole number, got 'ten'"),
        (Asked({"residual_channels": 5}), "do not fit"),
        (Asked({"mel.hop": 300}), "made for mels with hop 256, the definition asked for has 300"),
        (Asked({"mel.hopp": 300}), "'mel' has no setting 'hopp'"),
        (Asked(mel="tacotron3"), "unknown mel 'tacotron3'; choose one of: tacotron2-22k"),
        (Asked(seconds=2.0), "leave --seconds away"),
        (Asked(schedule=Schedule(50, 1.5)), "all between 0 and 1"),
        (Asked(steps=51), "expected 1 to 50 steps"),
        (Asked(betas=(1e-4, 0.9)), "expected levels within the trained range"),
        (Asked(betas=(1e-4, 0.1), steps=6), "--betas names 2 steps and --steps 6"),
    ],
)
def test_requests_that_the_network_cannot_follow_are_refused(asked: Asked, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"1000\.pkl: .*{sentence}"):
        imported_from(published.hollow(BASE), tmp_path, asked)


def test_a_free_generator_takes_no_mel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no mel spectrogram; leave --mel"):
        imported_from(published.hollow(FREE), tmp_path, Asked(mel="tacotron2-22k"))


def test_another_layout_than_asked_for_is_named(tmp_path: Path) -> None:
    torch.save({"model": published.hollow(LMNT)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt is not of the layout 'philsyn' but of 'lmnt'"):
        import_checkpoints([tmp_path / "a.pt"], layout="philsyn")
    with pytest.raises(InputError, match="unknown layout 'philsin'; choose one of: auto, philsyn, lmnt, sashimi"):
        import_checkpoints([tmp_path / "a.pt"], layout="philsin")


def test_networks_that_a_layout_cannot_hold_are_not_exported() -> None:
    free = {"num_layers": 1, "residual_channels": 4}
    networks = [
        ("philsyn", WaveNetConfig(**free, skip_channels=4, vector_dim=3)),
        ("philsyn", WaveNetConfig(**free, skip_channels=4, rising_steps=True)),
        ("lmnt", WaveNetConfig(**free, skip_channels=4)),
        ("lmnt", WaveNetConfig(**free, skip_channels=5, weight_norm=False, rising_steps=True)),
        ("sashimi", WaveNetConfig(**free, skip_channels=4)),
        ("sashimi", SashimiConfig(d_model=4, n_layers=1, kernel_length=16)),
    ]
    for layout, config in networks:
        with pytest.raises(InputError, match=f"the layout '{layout}' is for a"):
            LAYOUTS[layout].export(config.build())
