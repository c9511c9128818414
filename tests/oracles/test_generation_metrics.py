"""The scores of generated sets: the published program's numbers, and what the definitions promise."""

import json
import math

import numpy as np
import pytest

from fromnoise.evaluation import generation as g
from tests.rules import VECTORS

RESULTS = json.loads((VECTORS / "sc09_metrics.json").read_text())["results"]


@pytest.fixture(scope="module")
def sets():
    with np.load(VECTORS / "sc09_metrics.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def test_fid_is_the_published_programs(sets):
    assert g.fid(sets["feat_data"], sets["feat_gen"]) == pytest.approx(RESULTS["fid"], rel=1e-4)


@pytest.mark.parametrize(
    ("function", "key"),
    [
        (g.inception_score, "inception_score_standard_all"),
        (g.inception_score_repo, "inception_score_repo"),
        (g.modified_inception_score, "modified_inception_score_exact"),
        (g.modified_inception_score_repo, "modified_inception_score_repo_seed0"),
    ],
)
def test_inception_scores_are_the_published_programs(sets, function, key):
    assert function(sets["probs_gen"]) == pytest.approx(RESULTS[key], rel=1e-6)


def test_am_is_the_published_programs(sets):
    assert g.am_score(sets["probs_data"], sets["probs_gen"]) == pytest.approx(RESULTS["am_score"], rel=1e-6)


def test_ndb_is_the_published_programs_within_the_freedom_of_k_means(sets):
    pytest.importorskip("scipy")
    found = g.ndb_over_k(sets["feat_data"], sets["feat_gen"])
    assert found == pytest.approx(RESULTS["ndb_over_k_repo"], abs=0.04)
    assert found == g.ndb_over_k(sets["feat_data"], sets["feat_gen"])
    assert g.ndb_over_k(sets["feat_data"], sets["feat_data"]) == 0
    assert g.ndb_over_k(sets["feat_data"], sets["feat_gen"] + 5) > 0.5


def test_modified_inception_score_is_the_mean_over_all_pairs(sets):
    p = g._positive(sets["probs_gen"][:40])
    pairs = [[(a * np.log(a / b)).sum() for b in p] for a in p]
    assert g.modified_inception_score(p) == pytest.approx(math.exp(np.mean(pairs)), rel=1e-12)


def test_fid_of_gaussians_is_their_closed_form():
    draw = np.random.default_rng(0).normal(size=(4000, 3))
    white = (draw - draw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(draw, rowvar=False))).T
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([1.0, 0.0, -2.0])
    expected = np.square(shift).sum() + np.square(scales - 1).sum()  # both covariances are diagonal
    assert g.fid(white, white * scales + shift) == pytest.approx(expected, rel=1e-9)
    assert g.fid(white, white) == pytest.approx(0, abs=1e-9)


def test_fid_without_full_rank_stays_finite_and_not_negative():
    draw = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
    assert 0 <= g.fid(draw, draw[:4]) < 100
    with pytest.raises(ValueError, match="at least two sounds, got 1"):
        g.fid(draw, draw[:1])


def test_confident_balanced_classes_reach_the_bound_of_the_inception_score():
    p = np.eye(10, dtype=np.float32).repeat(5, axis=0)
    assert g.inception_score(p) == pytest.approx(10, rel=1e-6)
    missing = np.eye(10, dtype=np.float32)[:5].repeat(10, axis=0)
    assert g.inception_score(missing) == pytest.approx(5, rel=1e-6)
    rare = np.eye(10)[[0] * 182 + [c for c in range(1, 10) for _ in range(2)]]
    assert g.inception_score(rare) < 2 and g.inception_score_repo(rare) > 10  # a rare class is worth more than a common
    assert g.am_score(p, missing) > g.am_score(p, p) == pytest.approx(0, abs=1e-6)


def test_accuracy_and_fid_of_each_class():
    p = np.eye(3)[[0, 1, 1, 2]]
    labels = np.array([0, 1, 2, 2])
    assert g.accuracy(p, labels).tolist() == [1, 1, 0, 1]
    draw = np.random.default_rng(2).normal(size=(40, 4))
    marks = np.arange(40) % 2
    found = g.fid_by_class(draw, marks, draw + 3.0 * marks[:, None], marks)
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[1] == pytest.approx(4 * 9, rel=1e-9)
    with pytest.raises(ValueError, match="class 1 has 20 sounds in the data and 0 here"):
        g.fid_by_class(draw, marks, draw, 0 * marks)


def test_unknown_name_lists_the_choices():
    assert g.check_set_names(["fid", "is", "fid"]) == ("fid", "is")
    with pytest.raises(ValueError, match="unknown metric 'fad' of a set; choose from: fid, is, is_repo"):
        g.check_set_names(["fad"])


def test_every_metric_of_a_set_stands_in_the_docs():
    page = (VECTORS.parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, metric in g.SET_METRICS.items():
        assert f"`{name}`" in page
        assert metric.name == name and metric.definition.endswith(".")
