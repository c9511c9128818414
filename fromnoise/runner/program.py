"""A sampling run as a list of sums.

Between two network calls a sampler only ever adds: every state is a weighted sum of the observation, of noise and of
what the network answered before. The weights depend on nothing but process, prediction, sampler and time grid, so
`fromnoise export` works them out once, and what is left to do here is, with values v_k numbered in order,

    noise   v_k = the noise of draw n
    sum     v_k = sum_j w_j v_j              w_j a number, or one for each entry of the second axis
    clamp   v_k = sum_j w_j v_j, kept within -bound .. bound
    call    v_k = network(sum_j w_j v_j, time, gain)     or several: one for each condition that it is called with

One table so stands for any of the samplers, processes and predictions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Call = Callable[[np.ndarray, float, float], Sequence[np.ndarray]]
"""(x, time, gain of the condition's signal) -> an answer for each condition."""


def execute(
    program: Mapping[str, Any], given: Sequence[np.ndarray | None], call: Call, noise: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The result of a program. given: the values 0, 1, ...: observation, estimate. noise: draw -> array."""
    values: dict[int, np.ndarray] = {k: v for k, v in enumerate(given) if v is not None}
    last = _last_uses(program)
    for place, step in enumerate(program["steps"]):
        kind, to = step["op"], step["to"]
        if kind == "noise":
            values[to] = noise(step["draw"])
        elif kind == "call":
            answers = call(_total(step["of"], values), step["time"], step["gain"])
            values.update(zip(to, answers, strict=True))
        else:
            total = _total(step["of"], values)
            values[to] = total if kind == "sum" else np.clip(total, -step["bound"], step["bound"])
        for k in last.get(place, ()):
            values.pop(k, None)
    return values[program["result"]]


def _last_uses(program: Mapping[str, Any]) -> dict[int, list[int]]:
    """Place -> the values that nothing after it needs."""
    places: dict[int, int] = {}
    for place, step in enumerate(program["steps"]):
        places.update({k: place for k, _ in step.get("of", ())})
    places.pop(program["result"], None)
    return {place: [k for k, at in places.items() if at == place] for place in set(places.values())}


def _total(terms: Sequence[Sequence[Any]], values: Mapping[int, np.ndarray]) -> np.ndarray:
    """sum_j w_j v_j in float32."""
    total: np.ndarray | None = None
    for k, weight in terms:
        value = values[k]
        if isinstance(weight, list):
            part = value * np.asarray(weight, np.float32).reshape(1, -1, *[1] * (value.ndim - 2))
        else:
            part = value if weight == 1 else value * np.float32(weight)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("a sum without terms: the export is damaged; make it again")
    return total
