"""How near a set of generated sounds comes to a set of real ones, through the eyes of a classifier.

f are features (what the classifier's last layer reads), p_i the class probabilities of sound i, pbar their mean,
H(p) = -sum_c p_c ln p_c, KL(p | q) = sum_c p_c ln(p_c / q_c); "data" is the training set.

    fid        |mu_data - mu|^2 + tr(S_data + S - 2 (S_data S)^(1/2)), S unbiased covariances. Heusel et al., "GANs
               Trained by a Two Time-Scale Update Rule", 2017, https://arxiv.org/abs/1706.08500
    is         exp(mean_i KL(p_i | pbar)), at most the number of classes. Salimans et al., "Improved Techniques for
               Training GANs", 2016, https://arxiv.org/abs/1606.03498
    mis        exp(mean_ij KL(p_i | p_j)) over all ordered pairs = exp(-sum_c pbar_c mean_j ln p_jc - mean_i H(p_i)):
               also large where sounds of one class differ. Gurumurthy et al., "DeLiGAN", 2017
    am         KL(pbar_data | pbar) + mean_i H(p_i). Zhou et al., "Activation Maximization GANs", 2018
    ndb        50 cells by k-means over the features of the data; the share of cells whose part of the sounds differs
               from their part of the data, by the two-proportion z-test at 5 %. Richardson and Weiss, "On GANs and
               GMMs", 2018
    accuracy   share of sounds in which the classifier hears the class that was asked for
    fid_class  fid between the sounds of one class and the data of that class, mean and deviation over the classes

FID grows as sets shrink: with fewer sounds than features the covariance has no full rank. Compare sets of one size.

The program behind the published scores on spoken digits computes two of these otherwise; its forms have names of their
own. `is_repo` shuffles, takes pbar from the second half, and normalises each *class* over the sounds of the first half
instead of each sound over the classes: where classes are missing it exceeds every bound. `mis_repo` draws 10,000
pairs instead of taking all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Features = Float[np.ndarray, "_ d"]
Probabilities = Float[np.ndarray, "_ k"]
Labels = Int[np.ndarray, " _"]

CELLS = 50
LEAST = 1e-38  # a probability that a classifier rounded to 0


@dataclass(frozen=True)
class SetMetric:
    """One score of a whole set: name, unit, direction and definition, like `speech.Metric`."""

    name: str
    higher_is_better: bool
    definition: str
    unit: str = ""
    rates: tuple[int, ...] = ()
    package: str | None = None


_LIST = (
    SetMetric("fid", False, "Frechet distance of the classifier's features to those of the training set."),
    SetMetric("is", True, "Inception score exp(mean KL(p_i | mean p)), standard form, at most the number of classes."),
    SetMetric("is_repo", True, "Inception score as published on spoken digits, see the docs; no bound."),
    SetMetric("mis", True, "Modified inception score exp(mean KL(p_i | p_j)) over all ordered pairs."),
    SetMetric("mis_repo", True, "Modified inception score over 10,000 drawn pairs, as published on spoken digits."),
    SetMetric("am", False, "AM score: KL(mean p of the training set | mean p) + mean entropy of p_i."),
    SetMetric("ndb", False, "Share of 50 cells of the data's features that are filled differently.", package="scipy"),
    SetMetric("accuracy", True, "Share of sounds in which the classifier hears the class asked for."),
    SetMetric("fid_class", False, "Frechet distance within a class, mean and deviation over the classes."),
)  # fmt: skip
SET_METRICS: dict[str, SetMetric] = {metric.name: metric for metric in _LIST}


def fid(data: Features, made: Features) -> float:
    """Frechet distance of two sets of features, each modelled as a Gaussian. Raises ValueError below two sounds."""
    (mean, factor), (other_mean, other_factor) = _gaussian(data), _gaussian(made)
    # S = R'R, S' = Q'Q: tr (S S')^(1/2) is the sum of the singular values of R Q', which no rounding makes imaginary
    shared = np.linalg.svd(factor @ other_factor.T, compute_uv=False).sum()
    spread = np.square(factor).sum() + np.square(other_factor).sum() - 2 * shared
    return float(np.square(mean - other_mean).sum() + max(spread, 0.0))


def _gaussian(features: Features) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "_ d"]]:
    """Mean, and the triangle R with R'R = the unbiased covariance."""
    if len(features) < 2:
        raise ValueError(f"FID: expected at least two sounds, got {len(features)}")
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((wide - mean) / math.sqrt(len(wide) - 1), mode="r"))


def inception_score(p: Probabilities) -> float:
    """exp of the mean divergence of a sound's classes from the mean over sounds."""
    p = _positive(p)
    return math.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())


def inception_score_repo(p: Probabilities) -> float:
    """The published program's form, see the module's text."""
    p = _positive(p)
    first = p[np.random.RandomState(0).permutation(len(p))][: len(p) // 2]  # the published draw
    if len(first) == 0:
        raise ValueError(f"expected at least two sounds, got {len(p)}")
    over_sounds = first / first.sum(axis=0)
    return math.exp((over_sounds * np.log(over_sounds * len(first))).sum(axis=0).mean())


def modified_inception_score(p: Probabilities) -> float:
    """exp of the mean divergence over all ordered pairs of sounds."""
    p = _positive(p)
    return math.exp(-(p.mean(axis=0) * np.log(p).mean(axis=0)).sum() - entropy(p).mean())


def modified_inception_score_repo(p: Probabilities, pairs: int = 10_000) -> float:
    """The same over pairs drawn with the published seed."""
    p = _positive(p)
    draw = np.random.RandomState(0).randint(0, len(p), (pairs, 2))  # the published draw
    one, other = p[draw[:, 0]], p[draw[:, 1]]
    return math.exp((one * np.log(one / other)).sum(axis=1).mean())


def am_score(data: Probabilities, made: Probabilities) -> float:
    """Divergence of the mean classes from the data's, plus the mean entropy."""
    expected, found = _positive(data).mean(axis=0), _positive(made).mean(axis=0)
    return float((expected * np.log(expected / found)).sum() + entropy(_positive(made)).mean())


def entropy(p: Probabilities) -> Float[np.ndarray, " _"]:
    """Of each row, in nats."""
    return -(p * np.log(p)).sum(axis=1)


def _positive(p: Probabilities) -> Probabilities:
    """In float64, rows summing to 1, none 0."""
    wide = np.maximum(p.astype(np.float64), LEAST)
    return wide / wide.sum(axis=1, keepdims=True)


def ndb_over_k(data: Features, made: Features, cells: int = CELLS, seed: int = 0) -> float:
    """Share of the cells that are filled differently. Raises ValueError for less data than cells."""
    from scipy.cluster.vq import kmeans2, vq
    from scipy.stats import norm

    if len(data) < cells:
        raise ValueError(f"NDB: expected at least {cells} sounds as data, got {len(data)}")
    data, made = data.astype(np.float64), made.astype(np.float64)
    first = data[np.random.default_rng(seed).choice(len(data), cells, replace=False)]
    centres, _ = kmeans2(data, first, iter=100, minit="matrix")
    counts = [np.bincount(vq(features, centres)[0], minlength=cells) for features in (data, made)]
    n, m = len(data), len(made)
    pooled = (counts[0] + counts[1]) / (n + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    z = np.abs(counts[0] / n - counts[1] / m) / np.maximum(error, 1e-300)
    return float((z > norm.ppf(0.975)).mean())


def accuracy(p: Probabilities, labels: Labels) -> Float[np.ndarray, " _"]:
    """1 where the likeliest class is the label, else 0."""
    return (p.argmax(axis=1) == labels).astype(np.float64)


def fid_by_class(data: Features, data_labels: Labels, made: Features, labels: Labels) -> dict[int, float]:
    """FID of each class that is in the data. Raises ValueError where a class has fewer than two sounds."""
    found = {}
    for label in np.unique(data_labels).tolist():
        ours, theirs = made[labels == label], data[data_labels == label]
        if min(len(ours), len(theirs)) < 2:
            raise ValueError(
                f"FID: class {label} has {len(theirs)} sounds in the data and {len(ours)} here, expected 2"
            )
        found[label] = fid(theirs, ours)
    return found


def check_set_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without repeats; raises ValueError for an unknown one and lists the choices."""
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in SET_METRICS:
            raise ValueError(f"unknown metric {name!r} of a set; choose from: {', '.join(SET_METRICS)}")
    return chosen
