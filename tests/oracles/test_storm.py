"""StoRM (sp-uhh/storm at 257e963): a predictor and a diffusion that starts from what it says, against its own arrays.

Its complex unit noise is sqrt(2) per component here; see `fromnoise.importers.sgmse`. float64 throughout.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

import fromnoise
from fromnoise.backbones.ncsnpp import NCSNppConfig
from fromnoise.importers import Asked, import_checkpoints, ncsnpp, save, storm
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import Clues
from fromnoise.objectives import SNR, Objective
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel
from fromnoise.types import Condition, InputError
from tests.score_files import arrays_of, facts_of, hollow, listed, weights_of, write

NAME = "storm_networks_and_regeneration"
EXACT = {"rtol": 1e-9, "atol": 1e-11}
SETTINGS = {"mode": "regen-joint-training", "condition": "both", "sde": "ouve", "theta": 1.5, "n_fft": 30}
SETTINGS |= {"hop_length": 8, "spec_factor": 0.15, "sigma_min": 0.05, "sigma_max": 0.5, "t_eps": 0.03}
W = 2 / 3  # StoRM's w = 1/2: unit noise per component doubles the error of the score


@pytest.fixture(scope="module")
def facts():
    return facts_of(NAME)


@pytest.fixture(scope="module")
def arrays():
    return arrays_of(NAME)


@pytest.fixture(scope="module")
def state(facts):
    return {
        key: value
        for part in ("denoiser_net", "score_net")
        for key, value in weights_of(facts["weights"][part], f"{part}.").items()
    }


@pytest.fixture(scope="module")
def model(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("storm")
    imported = assemble("storm", storm.draft(state, Clues(path, {"hyper_parameters": SETTINGS})), Asked())
    config = dataclasses.replace(imported.config, frame_multiple=1, joint=W)  # the vector's frames are not filled up
    made = EnhancementModel(config).double().eval()
    made.load_state_dict(imported.weights)
    return made


@pytest.fixture
def draw(facts):
    """The n-th published draw."""
    rule, count = facts["noise"], iter(range(1000))

    def noise(like):
        b, c2, f, t = like.shape
        k, n = torch.arange(b * c2 // 2 * f * t, dtype=torch.float64), next(count)
        parts = [torch.sin(rule[b] * k + rule["c"] * n + rule[d]) for b, d in (("b", "d"), ("b2", "d2"))]
        return math.sqrt(2) * torch.stack([part.reshape(b, f, t) for part in parts], dim=1)

    return noise


def test_the_networks_say_what_the_published_ones_say(model, arrays):
    with torch.no_grad():
        given = model.given(arrays["in_y"])
        torch.testing.assert_close(given.observation, arrays["denoised"], **EXACT)
        torch.testing.assert_close(given.told, torch.cat([arrays["in_y"], arrays["denoised"]], 1), **EXACT)
        score = model.denoiser.backbone(arrays["x_t"], arrays["in_t"], Condition(signal=given.told))
    torch.testing.assert_close(-score, arrays["score"], **EXACT)


@pytest.mark.parametrize("corrector", ["none", "ald"])
def test_regeneration(model, arrays, facts, draw, corrector):
    run = model.default_run(facts["config"]["N"], f"pc:corrector={corrector}:snr={facts['config']['snr']}")
    with torch.no_grad():
        result = model.sample(arrays["in_y"], draw, run)
    torch.testing.assert_close(result, arrays[f"regeneration_{corrector}"], **EXACT)
    assert run.sampler.evaluations(run.num_steps) == int(arrays[f"nfe_{corrector}"])


@dataclasses.dataclass(frozen=True)
class Given(Objective):
    """The vector's times and noise."""

    t: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    z: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    def draw(self, process, prediction, x0, y=None, generator=None, u=None, z=None):
        return super().draw(process, prediction, x0, y, u=(self.t - process.t_min) / (1 - process.t_min), z=self.z)


@pytest.fixture
def losses(model, arrays, draw, monkeypatch):
    """joint -> the items' losses on the vector's data."""
    objective = Given(weighting=SNR(), t=arrays["in_t"], z=draw(arrays["in_x"]))
    monkeypatch.setattr(model, "encode_pair", lambda clean, noisy, length: (arrays["in_x"], arrays["in_y"]))
    silence, kept = torch.zeros(2, 1, 16), model.config

    def measure(joint):
        model.config = dataclasses.replace(kept, joint=joint)
        return model.loss(silence, silence, objective)

    yield measure
    model.config = kept
    model.zero_grad(set_to_none=True)


def test_joint_loss(losses, arrays):
    """Theirs are sums over everything, halved: 1/2 |z_c|^2 of complex noise is 1/4 |z|^2 of ours."""
    score, denoiser, total = arrays["loss_score_denoiser_total"].tolist()
    count = arrays["in_x"].numel()
    ours = float(losses(0.0).detach().mean())
    assert count / 4 * ours == pytest.approx(score, rel=1e-9)
    both = float(losses(W).detach().mean())
    assert 3 / 8 * count * both == pytest.approx(total, rel=1e-9)
    assert count / 2 * (both - (1 - W) * ours) / W == pytest.approx(denoiser, rel=1e-9)


def test_both_networks_learn_jointly_and_a_frozen_predictor_does_not(losses, model):
    for joint, moved in ((0.0, {"denoiser"}), (W, {"denoiser", "generator"})):
        model.zero_grad(set_to_none=True)
        losses(joint).sum().backward()
        reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == moved


def test_frames_are_filled_up_before_sampling(model, arrays, draw):
    """With zeros, and cut again: as if the filled spectrogram had been given."""
    y, run = arrays["in_y"][..., :5], model.default_run(2)
    kept, filled = model.config, torch.nn.functional.pad(y, (0, 3))
    shapes = []
    with torch.no_grad():
        whole = model.sample(filled, PositionNoise([0, 1]), run)
        model.config = dataclasses.replace(kept, frame_multiple=8)
        cut = model.sample(y, PositionNoise([0, 1]), run, lambda i, n, x: shapes.append(x.shape))
        model.config = kept
    assert torch.equal(cut, whole[..., :5])
    assert shapes == [y.shape] * 2


@pytest.fixture(scope="module")
def enhancer(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("storm")
    imported = import_checkpoints([write(folder / "a.ckpt", state, SETTINGS)], asked=Asked(steps=1))
    save(imported, folder / "enhancer")
    return fromnoise.load(folder / "enhancer")


def test_a_converted_model_enhances_at_any_level(enhancer):
    """The peak is brought to 1, so that a recording half as loud gives half the result, to the last bit."""
    noisy = 0.1 * torch.sin(0.3 * torch.arange(700.0)) + 0.02
    clean = enhancer(noisy, sample_rate=16000, seed=3)
    assert clean.shape == noisy.shape
    assert bool(clean.isfinite().all())
    assert torch.equal(enhancer(noisy / 2, sample_rate=16000, seed=3), clean / 2)
    config = enhancer.model.config
    assert (config.unit, config.frame_multiple, config.leads_to, config.condition) == ("peak", 64, "generator", "both")
    assert enhancer.network_calls() == 1 * 2 + 1  # corrector and predictor, and the predicting network


def test_published_size(tmp_path):
    shapes = listed("keys_storm_regen")
    state = hollow(shapes)
    assert storm.recognises(state)
    imported = assemble(
        "storm", storm.draft(state, Clues(tmp_path, {"hyper_parameters": {"condition": "both"}})), Asked()
    )
    own = imported.outline().state_dict()
    assert {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in imported.weights.items()}
    unread = sum(
        v.numel() for k, v in state.items() if k.startswith("denoiser_net.") and ("Dense" in k or k.endswith(".0.W"))
    )
    total = sum(value.numel() for value in own.values())
    assert total + unread == facts_of("keys_storm_regen")["n_parameters"] == 55_118_388
    assert (imported.config.num_steps, imported.config.sampler["step_rule"]) == (50, "even")


@pytest.mark.parametrize(("named", "ours"), [("noisy", "noisy"), ("post_denoiser", "generator")])
def test_conditions_of_four_channels(named, ours, tmp_path):
    settings = SETTINGS | {"condition": named}
    config = dataclasses.asdict(NCSNppConfig(16, 4, 2, 8, (1, 2), 1, ()))
    score = ncsnpp.to_published(NCSNppConfig(**config).build().state_dict(), NCSNppConfig(**config))
    denoiser = NCSNppConfig(16, 2, 2, 8, (1, 2), 1, (), divide="none", timed=False)
    state = {f"score_net.{k}": v for k, v in score.items()}
    state |= {f"denoiser_net.{k}": v for k, v in ncsnpp.to_published(denoiser.build().state_dict(), denoiser).items()}
    imported = import_checkpoints([write(tmp_path / "a.ckpt", state, settings)])
    assert imported.config.condition == ours
    with pytest.raises(InputError, match="condition is 'both', but the score network takes 2 spectra"):
        import_checkpoints([write(tmp_path / "a.ckpt", state, SETTINGS)])


def test_files_of_one_stage(state, tmp_path):
    """A denoiser becomes a model of one step; a score network is told from SGMSE's by its settings."""
    denoiser = {k.replace("denoiser_net", "dnn"): v for k, v in state.items() if k.startswith("denoiser_net")}
    alone = import_checkpoints(
        [write(tmp_path / "a.ckpt", denoiser, {"mode": "denoiser-only", "n_fft": 30, "hop_length": 8})]
    )
    assert (alone.layout, alone.config.num_steps, alone.config.prediction) == ("storm", 1, {"name": "clean"})
    config = NCSNppConfig(16, 4, 2, 8, (1, 2), 1, ())
    published = ncsnpp.to_published(config.build().state_dict(), config)
    score = {f"dnn.{key}": value for key, value in published.items()}
    settings = {"mode": "score-only", "backbone": "ncsnpp", "n_fft": 30, "hop_length": 8, "spatial_channels": 1}
    found = import_checkpoints([write(tmp_path / "b.ckpt", score, settings)])
    assert (found.config.backbone["centered"], found.config.sampler["step_rule"]) == (False, "even")
    told = import_checkpoints([tmp_path / "b.ckpt"], layout="storm")
    assert (told.config.backbone, told.config.num_steps) == (found.config.backbone, 50)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"leads_to": "generator"}, "need a generator"),
        ({"condition": "both"}, "need a generator"),
        ({"joint": 0.5}, "need a generator"),
        ({"joint": 1.0}, "0 <= joint < 1"),
        ({"frame_multiple": 0}, "frame_multiple of 1 to 4096"),
    ],
)
def test_impossible_configurations(change, fault):
    with pytest.raises(ValueError, match=fault):
        EnhancementModel(EnhancementConfig(**change))
