"""What an evaluation of separators leaves behind besides its report: sounds, figures and lists of single scores.

    <row>/<split>.json            one entry a mixture: every score of every source, time, network calls, reasons
    <row>/<split>_summary.json    their means, and the row's model, sampler and parameters
    <row>/wav/<split>/000_mix.wav, 000_enh0.wav, 000_tgt0.wav, ...   all of one mixture scaled to a peak of 0.95
    <row>/fig/<split>/evo_000.png       the states of the run from noise to the sources, 75 dB deep

<row> says how the sources were made, in the words of DiffSep's result folders where the sampler is its own:
`<model>_N-30_snr-0.5_corrstep-1_denoise-True_schedule-None`. Estimates stand in the order of their sources.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fromnoise.data.audio import write
from fromnoise.evaluation.plots import png, states_figure
from fromnoise.evaluation.report import jsonable
from fromnoise.evaluation.rows import Row
from fromnoise.evaluation.separated import Item
from fromnoise.evaluation.sources import SourceScores, fitting_order
from fromnoise.files import write_whole
from fromnoise.samplers import GRIDS, SAMPLERS, PredictorCorrector, Uniform
from fromnoise.tasks.base import Run
from fromnoise.tasks.separation import Separator

DIFFSEP = PredictorCorrector(corrector="ald2", step_rule="even")
PEAK = 0.95
STATES = 6
SECONDS = 30.0  # a longer mixture is separated in pieces, which have no states in common


@dataclasses.dataclass
class Trace:
    """Some states of one run, evenly spread: step (from 1) -> sources `k n` that the state stands for."""

    states: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    steps: int = 0

    def separate(
        self, model: Any, wave: np.ndarray, *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> np.ndarray | None:
        """What the model would return for the wave, noting its states; None where that takes more than one run."""
        whole = len(wave) <= SECONDS * sample_rate
        if not isinstance(model, Separator) or model.sample_rate != sample_rate or not whole:
            return None
        return model.piece(steps, sampler, seed, self._note)(wave[None].astype(np.float32), 0)

    def _note(self, i: int, n: int, x: Tensor) -> None:
        self.steps = n
        if i in np.linspace(0, n - 1, min(STATES, n)).round().astype(int):
            self.states[i + 1] = x[0].detach().float().cpu().numpy()


class Kept:
    """Writes all of it below `folder`; `count`: of so many mixtures sounds and figures, None of all."""

    def __init__(self, folder: Path, split: str = "test", count: int | None = None, tag: str | None = None) -> None:
        self.folder, self.split, self.count, self.tag = folder, split, count, tag
        self.rows: list[str] = []
        self.facts: list[dict[str, Any]] = []
        self.roles = False

    def begin(self, entries: Sequence[tuple[str, Any, str | None, int | None]], roles: bool = False) -> None:
        """The rows to come: name, model, sampler and steps of each. Their folders get names that differ.

        roles: the estimates' order is the sources'.
        """
        self.rows, self.facts, self.roles = [], [], roles
        for name, model, sampler, steps in entries:
            folder = _safe(self.tag or name) if model is not None else _safe(name)
            facts = {"model": name, "sampler": sampler, "steps": steps}
            if isinstance(model, Separator):
                run = model.model.default_run(steps, sampler)
                folder = run_folder(folder, run)
                facts |= {"sampler": _spec(run.sampler, SAMPLERS), "grid": _spec(run.grid, GRIDS)}
                facts |= {"steps": run.num_steps, "process": dict(model.model.config.process)}
            self.rows.append(folder if folder not in self.rows else f"{folder}_{len(self.rows)}")
            self.facts.append(facts)

    def trace(self, index: int) -> Trace | None:
        """Somewhere to note the states of a mixture that a figure is wanted of."""
        return Trace() if self._wanted(index) and find_spec("matplotlib") is not None else None

    def _wanted(self, index: int) -> bool:
        return self.count is None or index < self.count

    def keep(self, row: int, item: Item, estimate: np.ndarray, trace: Trace | None) -> None:
        """The sounds and the figure of one mixture."""
        if not self._wanted(item.index) or estimate.shape != item.sources.shape:
            return
        order = list(range(len(estimate)) if self.roles else fitting_order(item.sources, estimate))
        estimate = np.nan_to_num(estimate[order], posinf=0.0, neginf=0.0)
        waves = {"mix": item.wave}
        waves |= {f"enh{k}": wave for k, wave in enumerate(estimate)}
        waves |= {f"tgt{k}": wave for k, wave in enumerate(item.sources)}
        peak = max(float(np.abs(wave).max(initial=0.0)) for wave in waves.values())
        for name, wave in waves.items():
            path = self._place(row, "wav") / f"{item.index:03d}_{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, wave[None] * np.float32(PEAK / peak if peak else 1.0), item.sample_rate)
        if trace is not None and trace.states:
            level = max(float(item.wave.std()), 1e-5)  # states are those of a mixture of unit deviation
            shown = [
                {f"step {step} of {trace.steps}": state[order[k]] * level for step, state in trace.states.items()}
                | {"clean": source}
                for k, source in enumerate(item.sources)
            ]
            figure = states_figure(shown, item.sample_rate)
            write_whole(self._place(row, "fig") / f"evo_{item.index:03d}.png", png(figure, dpi=80, transparent=False))

    def _place(self, row: int, kind: str) -> Path:
        return self.folder / self.rows[row] / kind / self.split

    def finish(
        self, rows: Sequence[Row], work: Sequence[Mapping[int, float]], seconds: Mapping[int, float], seed: int
    ) -> None:
        """The lists of single scores, and their means."""
        for r, row in enumerate(rows):
            entries = [
                _entry(i, row, scores, work[r].get(i, math.nan), seconds.get(i, math.nan))
                for i, scores in enumerate(row.scores)
            ]
            means = {name: _mean(row.column(name)) for name in _names(row)}
            means |= {key: _mean([entry[key] for entry in entries]) for key in ("nfe", "runtime", "len_s", "rtf")}
            summary = means | {"number": len(entries), "seed": seed, **self.facts[r]}
            for name, content in ((self.split, entries), (f"{self.split}_summary", summary)):
                text = json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n"
                write_whole(self.folder / self.rows[r] / f"{name}.json", text.encode())


def _names(row: Row) -> list[str]:
    return list(dict.fromkeys(name for scores in row.scores for name in scores.values))


def _entry(index: int, row: Row, scores: Any, runtime: float, seconds: float) -> dict[str, Any]:
    """What the list says of one mixture."""
    parts = dict(scores.parts) if isinstance(scores, SourceScores) else {}
    found: dict[str, Any] = {"batch_idx": index, "name": row.files[index]}
    found |= {name: list(parts[name]) if name in parts else None for name in scores.values}
    found |= {"order": list(getattr(scores, "order", ())), "nfe": row.network_calls}
    found |= {"runtime": runtime, "len_s": seconds, "rtf": runtime / seconds if seconds > 0 else math.nan}
    return found | {"errors": dict(scores.reasons)}


def _mean(values: Sequence[float | int]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def run_folder(name: str, run: Run) -> str:
    """The name of the folder of a model's run: DiffSep's for its sampler, else all that is not as by default."""
    grid = None if run.grid == Uniform() else _told(_spec(run.grid, GRIDS))
    sampler = run.sampler
    if not isinstance(sampler, PredictorCorrector):
        return f"{name}_{_told(_spec(sampler, SAMPLERS))}_N-{run.num_steps}_schedule-{grid}"
    count = 0 if sampler.corrector == "none" else sampler.corrector_steps
    own, usual = dataclasses.asdict(sampler), dataclasses.asdict(DIFFSEP)
    told = f"N-{run.num_steps}_snr-{sampler.snr:g}_corrstep-{count}_denoise-{sampler.denoise}_schedule-{grid}"
    rest = [key for key in own if own[key] != usual[key] and key not in ("snr", "corrector_steps", "denoise")]
    return "_".join([name, told, *(_safe(f"{key}-{own[key]}") for key in rest)])


def _spec(part: Any, family: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler or grid as a spec: its name, and the settings that are not as by default."""
    name = next((name for name, kind in family.items() if kind is type(part)), type(part).__name__)
    own = dataclasses.asdict(part)
    usual = {f.name: f.default for f in dataclasses.fields(part)}
    return {"name": name} | {key: value for key, value in own.items() if value != usual[key]}


def _told(spec: Mapping[str, Any]) -> str:
    """'pc_corrector-none'."""
    return _safe("_".join([str(spec["name"]), *(f"{key}-{value}" for key, value in spec.items() if key != "name")]))


def _safe(text: str) -> str:
    """The text as a part of a folder's name on every system."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
