"""Distances of sets, CLAP's cosines, VGGish, and what BirdNET does around its network, by the packages' numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.evaluation import birdnet, distances, vggish
from tests.rules import VECTORS


def vector(name: str) -> dict[str, np.ndarray]:
    with np.load(VECTORS / f"t2a_{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays}


def facts(name: str) -> dict:
    return json.loads((VECTORS / f"t2a_{name}.json").read_text())


@pytest.fixture(scope="module")
def sets():
    return vector("frechet_clap")


def test_frechet_distances_are_the_packages(sets):
    data, made = sets["in.background"], sets["in.evaluation"]
    assert distances.frechet(data, made) == pytest.approx(float(sets["out.fad"]), abs=1e-9)
    assert distances.frechet(data, data) == pytest.approx(0, abs=1e-9)
    # The vector's own root of a singular product is exact to 3e-8.
    assert distances.frechet(data[:4], made) == pytest.approx(float(sets["out.fad_singular"]), abs=1e-6)


def test_clap_scores_are_the_packages(sets):
    found = distances.cosines(sets["in.text_embeddings"], sets["in.audio_embeddings"])
    assert found.mean() == pytest.approx(float(sets["out.clap_mean"]), abs=1e-12)
    assert found.std() == pytest.approx(float(sets["out.clap_std"]), abs=1e-12)


def test_vggish_hears_what_the_published_front_end_hears():
    held = vector("vggish")
    # The vector is rounded to float32, of values up to 4.6.
    np.testing.assert_allclose(vggish.log_mel(held["in.x"]), held["out.log_mel"], atol=1e-6)
    np.testing.assert_allclose(vggish.mel_bank().sum(0), held["out.mel_rowsum"], atol=1e-9)
    assert vggish.examples(held["in.x"]).shape == tuple(held["out.examples_shape"])


def test_the_shortest_sound_of_vggish():
    assert len(vggish.examples(np.zeros(vggish.LEAST))) == 1
    with pytest.raises(ValueError, match=r"0\.975 s"):
        vggish.examples(np.zeros(vggish.LEAST - 1))


def filled(shape: tuple[int, ...], index: int, amp: float, rule: dict) -> torch.Tensor:
    """amp u by the vectors' rule, a block of the flat index at a time: a tensor has up to 50 million entries."""
    count, m = math.prod(shape), rule["M"]
    out = np.empty(count, np.float32)
    for start in range(0, count, 1 << 22):
        k = np.arange(start, min(count, start + (1 << 22)), dtype=np.int64) % m
        n = ((rule["A"] + rule["E"] * index) * k + rule["B"] * (k * k % m) + rule["C"] * index + rule["D"]) % m
        out[start : start + len(k)] = amp * ((2 * n + 1 - m) / m)
    return torch.from_numpy(out.reshape(shape))


@pytest.mark.slow
def test_vggish_embeds_as_the_published_network(tmp_path):
    told, held = facts("vggish"), vector("vggish")
    state = {p["name"]: filled(p["shape"], p["index"], p["amp"], told["rule"]["constants"]) for p in told["params"]}
    for p in told["params"]:
        assert state[p["name"]].double().sum().item() == pytest.approx(p["sum"], abs=1e-3)
    torch.save(state, tmp_path / "vggish.pth")
    embedding = vggish.VGGish(tmp_path / "vggish.pth")(held["in.x"])
    # float32 sums over 12,288 and 4,096 terms; the vector's own tolerance.
    np.testing.assert_allclose(embedding, held["out.embedding"], atol=1e-4)
    np.testing.assert_allclose(np.maximum(embedding, 0), held["out.embedding_relu"], atol=1e-4)


@pytest.mark.parametrize("sensitivity", [0.75, 1.0, 1.25])
def test_birdnets_confidences_are_the_published_programs(sensitivity):
    held = vector("birdnet_post")
    found = birdnet.confidence(held["in.logits"], sensitivity)
    np.testing.assert_allclose(found, held[f"out.sigmoid_{sensitivity}"], atol=1e-12)


@pytest.mark.parametrize("number", range(8))
def test_birdnets_chunks_are_the_published_programs_but_for_short_sounds(number):
    told, held = facts("birdnet_post")["config"], vector("birdnet_post")
    case, rate = told["split_cases"][number], told["rate"]
    wave = np.ones(case["length"])
    found = birdnet.chunks(wave, rate, case["overlap"])
    if case["length"] < rate:  # the published program gives none, though it means to give one
        assert held["out.chunk_counts"][number] == 0
        assert found.shape == (1, 300)
        return
    assert len(found) == held["out.chunk_counts"][number]
    assert found[-1].sum() == held["out.last_chunk_nonzero"][number]


def detections(by_time: dict[str, list]) -> dict[tuple[str, str], float]:
    return {(time, name): value for time, found in by_time.items() for name, value in found}


@pytest.mark.parametrize("most", [1, 2, None])
def test_birdnets_merging_is_the_published_programs(most):
    told = facts("birdnet_post")["config"]
    given = [
        birdnet.Detection(*map(float, time.split("-")), name, value)
        for (time, name), value in detections(told["merge_input"]).items()
    ]
    found = {(f"{one.start}-{one.end}", one.species): one.confidence for one in birdnet.merged(given, most)}
    assert found == pytest.approx(detections(told["merge_output"][str(most)]), abs=1e-12)
    assert list(found) == sorted(found, key=lambda key: (float(key[0].split("-")[0]), -found[key]))


def test_merging_three_in_a_row_merges_three():
    # The published program merges two, as its vector says; the rule here is what was asked for.
    given = [birdnet.Detection(3.0 * i, 3.0 * i + 3, "a", value) for i, value in enumerate((0.9, 0.5, 0.7, 0.4))]
    assert [(one.start, one.end) for one in birdnet.merged(given, 3)] == [(0, 9), (9, 12)]
    assert len(detections(facts("birdnet_post")["config"]["merge_output"]["3"])) > len(birdnet.merged(given, 3))


def gaussians(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_extrapolation_takes_the_bias_away(shift):
    """Of equal Gaussians the distance is 0; of a shift by s in each of d numbers it is d s^2."""
    plain, limit, files = [], [], np.arange(150)
    for seed in range(12):
        data, made = gaussians(150, 20, 2 * seed), gaussians(150, 20, 2 * seed + 1, shift)
        plain.append(distances.frechet(data, made))
        limit.append(distances.frechet_unbiased(data, files, made, files, seed))
    assert abs(np.mean(limit) - 20 * shift**2) < 3 * np.std(limit) / math.sqrt(len(limit))
    assert np.mean(plain) > 20 * shift**2 + 1.5


def test_extrapolation_leaves_whole_files_out_and_says_when_there_are_too_few():
    data, files = gaussians(60, 2, 0), np.repeat(np.arange(20), 3)
    some = distances._thinned(np.arange(60)[:, None].astype(float), files, 0.5, np.random.default_rng(0))
    assert sorted(np.bincount((some[:, 0] // 3).astype(int)).tolist())[-10:] == [3] * 10 and len(some) == 30
    with pytest.raises(ValueError, match="at least 64 examples for 30 dimensions, got 60"):
        distances.frechet_unbiased(gaussians(60, 30, 0), files, gaussians(60, 30, 1), files)
    assert distances.frechet_unbiased(data, files, data, files, 3) == distances.frechet_unbiased(
        data, files, data, files, 3
    )


def test_kernel_distance_is_the_sum_over_pairs_and_without_bias():
    x, y = gaussians(7, 3, 0), gaussians(5, 3, 1, 0.5)
    width = np.median([np.linalg.norm(x[i] - x[j]) for i in range(7) for j in range(i)])
    k = lambda a, b: math.exp(-np.sum((a - b) ** 2) / (2 * width**2))  # noqa: E731
    within = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    across = np.mean([k(a, b) for a in x for b in y])
    assert distances.kernel_distance(x, y) == pytest.approx(100 * (sum(within) - 2 * across), abs=1e-9)
    alike = [distances.kernel_distance(gaussians(40, 4, 2 * s), gaussians(40, 4, 2 * s + 1)) for s in range(40)]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / math.sqrt(40)
    assert min(alike) < 0 < distances.kernel_distance(gaussians(40, 4, 0), gaussians(40, 4, 1, 1.0))
    with pytest.raises(ValueError, match="all alike"):
        distances.kernel_distance(np.ones((3, 2)), y[:, :2])


def test_blocks_do_not_matter(monkeypatch):
    x, y = gaussians(30, 3, 0), gaussians(20, 3, 1)
    whole = distances.kernel_distance(x, y)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert distances.kernel_distance(x, y) == pytest.approx(whole, abs=1e-10)


def test_wrong_weights_are_refused(tmp_path: Path):
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="17 of 18 tensors are missing"):
        vggish.VGGish(tmp_path / "bad.pth")
