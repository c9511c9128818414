"""Condition collapse as a number: how much a model's estimate, and its samples, depend on what it is told.

A conditional model has collapsed when it ignores its condition C and makes anything at all (Tai et al., "DR-DiffuSE",
AAAI 2023). With x0 clean, x_t drawn from it, f the denoiser's estimate of x0, C' the condition of another item, 0 that
of silence (or of no label), d a tenth of a standard deviation of white noise, and one (x_t, t) for all arms:

    gain     G(t) = 1 - E|f(x_t, C) - x0|^2 / E|f(x_t, C') - x0|^2                0: C does not help
    swap     R(t) = E|f(x_t, C) - f(x_t, C')|^2 / E|f(x_t, C) - x0|^2             0: C is not heeded, helpful or not
    silence  the same with 0 in place of C'
    total    as G, but y' takes the place of the process's own y in state and network, too (where the path holds a y):
             what C gives by all ways together. What x_t holds of y alone counts as no dependence in G and R
    share    of C in the response to small changes: r_C/(r_C + r_x),  r_C = E|f(x_t, C + d) - f(x_t, C)|^2, r_x alike
    loss     E|z' - z|^2 with C and with C', z' the unit noise that f implies     1: as good as predicting none

At one t all estimates are linear in the network's output, so G, R and share do not depend on what it predicts. Samples
g of the label l, in compressed magnitudes |.|^(1/2) (a vocoder's: log-mel), r Pearson's correlation, l' another item's:

    faithfulness  A = [r(g, l) - r(g, l')] / [r(C, l) - r(C, l')]     0: collapse, 1: as faithful as C, above: better
    dispersion    E[1 - r(g_1, g_2)] over seeds / the same over items and seeds     1: collapse. It is the variance over
                  seeds as a share of that over items, each g at zero mean and unit deviation: levels do not count
    likeness      r(g, C): a sample that only copies C has A = 1 and gains nothing

Intervals are percentiles of the bootstrap over items (`statistics`), all arms of an item together. The noise belongs to
(seed, name of the item), so that two models on the same data get the same draws: compare them item by item.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fromnoise.evaluation.run import item_seed
from fromnoise.evaluation.statistics import RESAMPLES, bootstrap_means
from fromnoise.processes.base import Process, State, pooled, time_dtype
from fromnoise.samplers import Denoise, PositionNoise
from fromnoise.tasks.sources import permutations_of
from fromnoise.types import Condition, expand

NUDGE = 0.1
"""d, in standard deviations of what is nudged."""
BATCH = 8
ARMS = ("true", "swapped", "silent", "move_swapped", "move_silent", "move_nudged", "move_state", "exchanged")
Features = Float[Tensor, "b K d"]
Rows = Int64[Tensor, " r"]


@dataclass(frozen=True)
class Subject:
    """A model and items of one length, in its encoded domain.

    clean, observation: x0 and the process's y. told, silent: conditions; of their fields `kept` are no condition but
    part of the state, and stay. partner: whose condition takes the place of one's own. denoise(rows, condition): the
    function (x, t) -> x0 with these items' y. error(estimate, clean): of each item. sample(rows, seeds): states and
    waves `b K n`. features: of waves. label, reference: features of l and, where a condition has any, of C. waves: C
    and l where they can be heard. shown: C and l for pictures, where they differ. words: C of each item where it is a
    word. what: what C is.
    """

    name: str
    names: tuple[str, ...]
    what: str
    process: Process
    clean: State
    observation: State | None
    told: Condition
    silent: Condition
    partner: Rows
    denoise: Callable[[Rows, Condition], Denoise]
    sample: Callable[[Rows, Sequence[int]], tuple[State, Float[Tensor, "b K n"]]]
    features: Callable[[Float[Tensor, "b K n"]], Features]
    label: Features
    reference: Features | None
    sample_rate: int
    error: Callable[[State, State], Float[Tensor, " b"]] = field(default=lambda a, b: distance(a, b))
    kept: frozenset[str] = frozenset()
    waves: dict[str, Tensor] = field(default_factory=dict)
    shown: dict[str, Tensor] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    def observed(self, rows: Rows) -> State | None:
        """y of these items."""
        return None if self.observation is None else self.observation[rows]

    def conditions(self, rows: Rows, noise: PositionNoise) -> tuple[Condition, Condition, Condition, Condition]:
        """C, C', 0 and C + d of these items."""
        told, swapped = self.told.map(lambda x: x[rows]), self.told.map(lambda x: x[self.partner[rows]])
        silent = self.silent.map(lambda x: x[rows])
        nudged = told.map(lambda x: nudge(x, noise) if x.is_floating_point() else x)
        own = {name: getattr(told, name) for name in self.kept}
        return told, replace(swapped, **own), replace(silent, **own), replace(nudged, **own)


def distance(a: State, b: State) -> Float[Tensor, " b"]:
    """The mean square of the difference, of each item."""
    return (a - b).square().flatten(1).mean(1)


def nudge(x: State, noise: PositionNoise) -> State:
    """x + d."""
    deviation = x.flatten(1).std(1) if x[0].numel() > 1 else torch.ones_like(x.flatten(1)[:, 0])
    return x + NUDGE * expand(deviation, x) * noise(x)


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: np.ndarray, of: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Estimate:
    """`of` the means over items, with its interval; values: items first; `of` keeps leading axes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(of(values.mean(0)))
        if len(values) < 2:
            return Estimate(value, math.nan, math.nan)
        drawn = of(bootstrap_means(values, seed, RESAMPLES))
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))


def _ratio(top: str, *bottom: str) -> Callable[[np.ndarray], np.ndarray]:
    places, over = [ARMS.index(name) for name in bottom], ARMS.index(top)
    return lambda means: means[..., over] / means[..., places].sum(-1)


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gain": lambda means: 1 - _ratio("true", "swapped")(means),
    "total": lambda means: 1 - _ratio("true", "exchanged")(means),
    "swap": _ratio("move_swapped", "true"),
    "silence": _ratio("move_silent", "true"),
    "share": _ratio("move_nudged", "move_nudged", "move_state"),
}


@dataclass(frozen=True)
class Curve:
    """What was measured at each time: `values` of ARMS, `noise_scale` from the error of x0 to that of the noise."""

    times: tuple[float, ...]
    values: Float[np.ndarray, "t i arms"]
    noise_scale: tuple[float, ...]

    def at(self, name: str, k: int, seed: int = 0) -> Estimate:
        """One of CURVES at time k."""
        return estimate(self.values[k], CURVES[name], seed)

    def mean(self, name: str, seed: int = 0) -> Estimate:
        """The mean of one of CURVES over the times."""
        return estimate(self.values.swapaxes(0, 1), lambda means: CURVES[name](means).mean(-1), seed)

    def loss(self, arm: str, k: int, seed: int = 0) -> Estimate:
        """E|z' - z|^2 with C ("true") or with C' ("swapped") at time k; NaN where the process has no noise."""
        return estimate(self.values[k], lambda means: means[..., ARMS.index(arm)] * self.noise_scale[k], seed)


def gap(one: Curve, other: Curve, name: str, seed: int = 0) -> Estimate:
    """How much more one model has of the mean of one of CURVES than another, on the same items at as many times; what
    both find hard cancels in the interval."""
    both = np.stack([one.values, other.values]).transpose(2, 0, 1, 3)  # items, models, times, arms

    def difference(means: np.ndarray) -> np.ndarray:
        found = CURVES[name](means).mean(-1)
        return np.asarray(found[..., 0] - found[..., 1])

    return estimate(both, difference, seed)


def times_between(process: Process, bins: int) -> list[float]:
    """The middles of so many equal parts of [t_min, 1], each moved to the nearest trained step if there are such."""
    low = float(process.t_min)
    middles = low + (torch.arange(bins, dtype=torch.float64) + 0.5) / bins * (1 - low)
    trained = process.trained_times()
    if trained is None:
        return middles.tolist()
    nearest = (trained[None] - middles[:, None].to(trained)).abs().argmin(1)
    return trained[nearest.unique()].tolist()


def measure_curve(
    subject: Subject, times: Sequence[float], seed: int = 0, told: Callable[[int], object] | None = None
) -> Curve:
    """Every item at every time, all arms with the same state. told: is called with the number of items done."""
    values = np.empty((len(times), len(subject.names), len(ARMS)))
    places = torch.tensor(times, dtype=time_dtype(subject.clean.device), device=subject.clean.device)
    for rows in torch.arange(len(subject.names), device=subject.clean.device).split(BATCH):
        noise = PositionNoise([item_seed(seed, subject.names[i]) for i in rows.tolist()])
        conditions = subject.conditions(rows, noise)
        networks = [subject.denoise(rows, condition) for condition in conditions]
        if subject.process.needs_observation:
            networks.append(subject.denoise(subject.partner[rows], conditions[1]))
        for k, t in enumerate(places):
            values[k, rows.cpu().numpy()] = _arms(subject, rows, networks, t.expand(len(rows)), noise)
        if told is not None:
            told(len(rows))
    weights = subject.process.weights(places)
    clean, noise_level = pooled(weights.clean), pooled(weights.noise)
    scale = torch.where(noise_level > 0, clean / noise_level, torch.nan).square()
    return Curve(tuple(times), values, tuple(scale.tolist()))


def _arms(
    subject: Subject, rows: Rows, networks: Sequence[Denoise], t: Tensor, noise: PositionNoise
) -> Float[np.ndarray, "r arms"]:
    """ARMS of some items at one time."""
    clean, y = subject.clean[rows], subject.observed(rows)
    z = noise(clean)
    x = subject.process.sample(clean, t, y, z)
    true, swapped, silent, nudged = (network(x, t) for network in networks[:4])
    state = networks[0](nudge(x, noise), t)
    errors = [subject.error(found, clean) for found in (true, swapped, silent)]
    moves = [distance(found, true) for found in (swapped, silent, nudged, state)]
    exchanged = torch.full_like(errors[0], torch.nan)
    if len(networks) > 4:
        other = subject.process.sample(clean, t, subject.observed(subject.partner[rows]), z)
        exchanged = subject.error(networks[4](other, t), clean)
    return torch.stack([*errors, *moves, exchanged], 1).double().cpu().numpy()


PARTS = ("g_l", "g_other", "c_l", "c_other", "g_c", "seeds", "items")


@dataclass(frozen=True)
class Samples:
    """What was measured on samples: PARTS of each item, and sounds and pictures of the first few."""

    values: Float[np.ndarray, "i parts"]
    states: State
    waves: Float[Tensor, "b K n"]

    def _of(self, function: Callable[..., np.ndarray], *names: str, seed: int) -> Estimate:
        places = [PARTS.index(name) for name in names]
        return estimate(self.values, lambda means: function(*np.moveaxis(means[..., places], -1, 0)), seed)

    def faithfulness(self, seed: int = 0) -> Estimate:
        """A."""
        return self._of(lambda a, b, c, d: (a - b) / (c - d), "g_l", "g_other", "c_l", "c_other", seed=seed)

    def dispersion(self, seed: int = 0) -> Estimate:
        """Variance over seeds as a share of that over items."""
        return self._of(lambda a, b: a / b, "seeds", "items", seed=seed)

    def likeness(self, name: str, seed: int = 0) -> Estimate:
        """The mean of r: "g_l" sample and label, "c_l" condition and label, "g_c" sample and condition."""
        return self._of(lambda a: a, name, seed=seed)


def measure_samples(
    subject: Subject, seeds: int = 2, seed: int = 0, told: Callable[[int], object] | None = None
) -> Samples:
    """Samples of every item with every seed; the first seed's are compared with label and condition."""
    found, states, waves = [], [], []
    for rows in torch.arange(len(subject.names), device=subject.clean.device).split(BATCH):
        drawn = []
        for k in range(seeds):
            own = [item_seed(seed + k, subject.names[i]) for i in rows.tolist()]
            state, wave = subject.sample(rows, own)
            drawn.append(subject.features(wave))
            if k == 0:
                states.append(state.cpu())
                waves.append(wave.cpu())
            if told is not None:
                told(len(rows))
        found.append(torch.stack(drawn))
    return Samples(_parts(subject, torch.cat(found, 1)), torch.cat(states), torch.cat(waves))


def _parts(subject: Subject, drawn: Float[Tensor, "s b K d"]) -> Float[np.ndarray, "i parts"]:
    """PARTS of every item, NaN where there is no C or one seed only."""
    first, other = drawn[0], subject.partner
    nothing = torch.full_like(first[:, 0, 0], torch.nan)
    columns = [likeness(first, subject.label), likeness(first, subject.label[other])]
    if subject.reference is None:
        columns += [nothing] * 3
    else:
        own, c = subject.label, subject.reference
        columns += [likeness(c, own), likeness(c, own[other]), likeness(first, c)]
    pairs = [(a, b) for a in range(len(drawn)) for b in range(len(drawn)) if a != b]
    if not pairs:
        return torch.stack([*columns, nothing, nothing], 1).double().cpu().numpy()
    columns.append(torch.stack([1 - likeness(drawn[a], drawn[b]) for a, b in pairs]).mean(0))
    columns.append(torch.stack([1 - likeness(drawn[a], drawn[b, other]) for a, b in pairs]).mean(0))
    return torch.stack(columns, 1).double().cpu().numpy()


def likeness(a: Features, b: Features) -> Float[Tensor, " b"]:
    """Pearson's r of each item, the mean over its sources in their best order."""
    a, b = (x.double() - x.double().mean(-1, keepdim=True) for x in (a, b))
    a, b = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12) for x in (a, b))
    return torch.stack([(a * b[:, list(order)]).sum(-1).mean(-1) for order in permutations_of(a.shape[1])]).amax(0)


@dataclass(frozen=True)
class Report:
    """All of one model. scores: of signals by name ("noisy", "condition", "sample") -> metric -> its mean."""

    model: str
    what: str
    items: tuple[str, ...]
    seed: int
    curve: Curve
    samples: Samples | None
    scores: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, float]]:
        """One row for each time."""
        lines = []
        for k, t in enumerate(self.curve.times):
            found = {name: self.curve.at(name, k, self.seed) for name in CURVES}
            found |= {f"loss_{arm}": self.curve.loss(arm, k, self.seed) for arm in ARMS[:2]}
            lines.append({"t": t} | {f"{n}{end}": v for n, e in found.items() for end, v in _ends(e)})
        return lines

    def summary(self) -> dict[str, Estimate]:
        """The numbers of the whole."""
        found = {name: self.curve.mean(name, self.seed) for name in CURVES}
        if self.samples is not None:
            found |= {"faithfulness": self.samples.faithfulness(self.seed)}
            found |= {"dispersion": self.samples.dispersion(self.seed)}
            words = {"sample_label": "g_l", "condition_label": "c_l", "sample_condition": "g_c"}
            found |= {f"likeness_{word}": self.samples.likeness(name, self.seed) for word, name in words.items()}
        return {name: value for name, value in found.items() if math.isfinite(value.value)}


def _ends(one: Estimate) -> list[tuple[str, float]]:
    return [("", one.value), ("_low", one.low), ("_high", one.high)]
