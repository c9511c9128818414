"""The numbers of `collapse` as plain data, with what they mean in one sentence for people who do not know them."""

import math
from typing import Any

from fromnoise.evaluation.collapse import Estimate, Report

IMPROVEMENT = "sample - condition"
"""The row of scores that says what sampling adds to the condition alone."""
LITTLE = 0.02
"""A gain, or a swap's response as a share of the error, below which a condition counts as ignored."""
COPY = 0.98
"""From this r on a sample is a copy of its condition."""
COLLAPSED, FAITHFUL = 0.3, 0.9
"""Below and above these a sample ignores its condition, or follows it."""
ALONE = 0.9
"""A dispersion over seeds from which on samples do not know which item they belong to."""


def plain(report: Report) -> dict[str, Any]:
    """Plain data."""
    numbers = {name: value._asdict() for name, value in report.summary().items()}
    scores = {row: {name: one._asdict() for name, one in line.items()} for row, line in report.scores.items()}
    facts = {"model": report.model, "condition": report.what, "items": list(report.items), "seed": report.seed}
    return facts | {"meaning": meaning(report), "summary": numbers, "scores": scores, "curve": report.rows()}


def meaning(report: Report) -> str:
    """The sentence."""
    found = report.summary()
    parts = [_estimate(found["gain"], found.get("swap"), report)] if "gain" in found else []
    if _in_state(found):
        parts.append(f"what the state holds of it counts besides (total {found['total']})")
    if "faithfulness" in found:
        says_all = found["likeness_condition_label"].value >= COPY  # a mel: to copy it is the task
        copy = None if says_all else found["likeness_sample_condition"]
        parts.append(_samples(found["faithfulness"], copy, report.what))
    better = report.scores.get(IMPROVEMENT, {}).get("pesq_wb")
    if better is not None:
        parts.append(_improvement(better, report.what))
    if "dispersion" in found and found["dispersion"].value > ALONE:
        parts.append("seeds differ as much as items do")
    text = "; ".join(parts) or "nothing could be measured"
    return text[0].upper() + text[1:] + "."


def _estimate(gain: Estimate, swap: Estimate | None, report: Report) -> str:
    """How the estimate at one time depends on the condition."""
    what, n = report.what, len(report.curve.times)
    if gain.value < LITTLE or gain.low <= 0:
        if swap is None or swap.value < LITTLE:
            told = f"the estimate ignores {what} as it is told (gain {gain})"
            return told if _in_state(report.summary()) else f"{told}: the condition has collapsed"
        return f"the estimate reacts to {what} (swap {swap}) but is no better for it (gain {gain})"
    times = "" if gain.value >= 1 else f", {1 / (1 - gain.value):.3g} times"
    start = f"the estimate uses {what}: another item's makes its error larger{times} (gain {gain})"
    if n < 3:
        return start
    early, late = (report.curve.at("gain", k, report.seed).value for k in (-1, 0))
    more = "more" if early > late else "less"
    return f"{start}, {more} of it near the noise ({early:.2f}) than near the data ({late:.2f})"


def _in_state(found: dict[str, Estimate]) -> bool:
    """Whether the process's own observation says more of the condition than the network is told."""
    return "total" in found and found["total"].low > max(found["gain"].value, LITTLE)


def _samples(faithful: Estimate, copy: Estimate | None, what: str) -> str:
    """How samples follow the condition."""
    if faithful.value < COLLAPSED:
        return f"its samples hardly follow {what} (A = {faithful})"
    if faithful.value < FAITHFUL:
        return f"its samples follow {what} in part (A = {faithful})"
    if copy is not None and math.isfinite(copy.value) and copy.value >= COPY:
        return f"its samples are nearly copies of {what} (A = {faithful}, likeness {copy})"
    above = faithful.low > 1
    return f"its samples are {'nearer to the label than' if above else 'as faithful as'} {what} (A = {faithful})"


def _improvement(better: Estimate, what: str) -> str:
    """What sampling adds to the condition alone."""
    if better.low > 0:
        return f"sampling adds {better} PESQ to {what}"
    if better.high < 0:
        return f"sampling costs {what} PESQ ({better})"
    return f"sampling adds no PESQ to {what} that could be told from chance ({better})"
