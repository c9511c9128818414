"""How far a set of sounds lies from a reference set, both given as rows of numbers (embeddings), and how well two
match.

frechet            |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)), S unbiased covariances: `generation.fid`. With an audio
                   embedding it is called FAD (Kilgour et al., 2018, https://arxiv.org/abs/1812.08466)
frechet_unbiased   its limit for endless sets. The bias falls as 1/n (Chong and Forsyth, "Effectively Unbiased FID and
                   Inception Score", CVPR 2020), so both sets are thinned to shares s of their files and a line
                   a + b/s is fitted; a is the answer. It may fall below 0
kernel_distance    100 MMD^2, unbiased: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), pairs of a row with itself left
                   out, k(x, y) = exp(-|x - y|^2 / (2 w^2)), w the median distance within the reference (Chung et al.,
                   "KAD: No More FAD!", 2025, https://arxiv.org/abs/2502.15602). It needs no Gaussians and few rows
cosines            of row i of one set and row i of the other, norms + 1e-8
"""

import numpy as np
from jaxtyping import Float, Int

from fromnoise.evaluation.generation import Features, SetMetric, fid

Files = Int[np.ndarray, " _"]
"""For each row the number of the file that it comes from, counted from 0."""

SHARES = 7
DRAWS = 5
KERNEL_SCALE = 100.0
BLOCK = 1024
MEDIAN_ROWS = 2000

EMBEDDED = ("logmel", "classifier", "vggish", "clap")
"""The embedders by which sets are compared, see `embedders`."""

_OF_SETS = {
    "fad": "Frechet distance to the data, biased upwards for few sounds",
    "fad_inf": "Frechet distance to the data extrapolated to endless sets",
    "kad": "100 times the unbiased squared MMD to the data, Gaussian kernel of the data's median distance",
}
_OF_SOUNDS = (
    SetMetric("clap_score", True, "Cosine of CLAP's embeddings of the sound and of the text asked for."),
    SetMetric("bird_top1", True, "Share of sounds in which BirdNET is surest of the species asked for."),
    SetMetric("bird_found", True, "Share of sounds with the species asked for at BirdNET's threshold in some chunk."),
    SetMetric("bird_confidence", True, "BirdNET's highest confidence in the species asked for."),
)
SOUND_METRICS: dict[str, SetMetric] = {
    metric.name: metric
    for metric in (
        *(SetMetric(f"{d}_{e}", False, f"{text}; embedder {e}.") for e in EMBEDDED for d, text in _OF_SETS.items()),
        *_OF_SOUNDS,
    )
}


def frechet(reference: Features, made: Features) -> float:
    """The distance as it is, biased upwards for few rows."""
    return fid(reference, made)


def frechet_unbiased(reference: Features, reference_files: Files, made: Features, files: Files, seed: int = 0) -> float:
    """The distance of endless sets. Raises ValueError where half a set has no more rows than a row has numbers.

    Whole files are left out, because the rows of one file resemble each other.
    """
    fewest, width = min(len(reference), len(made)), reference.shape[1]
    if fewest < 2 * (width + 2):
        raise ValueError(f"expected at least {2 * (width + 2)} examples for {width} dimensions, got {fewest}")
    least = max(0.25, (width + 2) / fewest)
    shares = 1 / np.linspace(1, 1 / least, SHARES)
    draw, found = np.random.default_rng(seed), []
    for share in shares:
        rounds = 1 if share == 1 else DRAWS
        some = [
            fid(_thinned(reference, reference_files, share, draw), _thinned(made, files, share, draw))
            for _ in range(rounds)
        ]
        found.append(float(np.mean(some)))
    return float(np.polyfit(1 / shares, found, 1)[1])


def _thinned(rows: Features, files: Files, share: float, draw: np.random.Generator) -> Features:
    """The rows of whole files in drawn order until there are `share` of all."""
    rank = np.argsort(draw.permutation(int(files.max()) + 1))[files]
    return rows[np.argsort(rank, kind="stable")[: round(share * len(rows))]]


def kernel_distance(reference: Features, made: Features) -> float:
    """See the module's text. Raises ValueError below two rows, or for a reference of equal rows."""
    if min(len(reference), len(made)) < 2:
        raise ValueError(f"expected at least two examples, got {len(reference)} and {len(made)}")
    x, y = reference.astype(np.float64), made.astype(np.float64)
    some = x[np.linspace(0, len(x) - 1, min(len(x), MEDIAN_ROWS)).round().astype(int)]
    width = float(np.median(np.sqrt(_squares(some, some)[np.triu_indices(len(some), 1)])))
    if not width > 0:
        raise ValueError("the examples of the reference are all alike")
    n, m = len(x), len(y)
    within = (_kernel_sum(x, x, width) - n) / (n * (n - 1)) + (_kernel_sum(y, y, width) - m) / (m * (m - 1))
    return KERNEL_SCALE * (within - 2 * _kernel_sum(x, y, width) / (n * m))


def _kernel_sum(x: Features, y: Features, width: float) -> float:
    """Sum of k over all pairs, some rows at a time."""
    parts = (np.exp(-_squares(x[i : i + BLOCK], y) / (2 * width**2)).sum() for i in range(0, len(x), BLOCK))
    return float(sum(parts))


def _squares(x: Features, y: Features) -> Float[np.ndarray, "n m"]:
    """Squared distances of all pairs."""
    return np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0.0)


def cosines(one: Features, other: Features) -> Float[np.ndarray, " _"]:
    """Row by row. Raises ValueError for sets of different shape."""
    if one.shape != other.shape:
        raise ValueError(f"expected as many rows and columns on both sides, got {one.shape} and {other.shape}")
    a, b = (side.astype(np.float64) for side in (one, other))
    return (a * b).sum(1) / ((np.linalg.norm(a, axis=1) + 1e-8) * (np.linalg.norm(b, axis=1) + 1e-8))
