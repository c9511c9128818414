"""What a sampler does between two network calls, written down as sums (see `fromnoise.runner.program`).

The model's own sampling runs once on *forms* in place of data. A form is a float64 tensor `b k m 1`, or `b k m` for
networks of waves, whose third axis counts the values that there are so far, not frequencies or samples: entry (k, j) is
the weight of value j in the k-th channel.
Addition and scaling of forms are addition and scaling of what they stand for, so nothing of process, prediction,
sampler or grid has to be written a second time. Noise, a network call and the state after a step each become a new
value. Anything that is not linear in the state is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fromnoise.processes.base import Process, State, Times
from fromnoise.samplers import Noise, PositionNoise, Sampler
from fromnoise.types import Condition, InputError

LINEAR = {
    *(
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "true_divide",
        "neg",
        "lerp",
        "where",
        "cat",
        "chunk",
        "pad",
        "sum",
        "select",
    ),
    *("__get__", "__getitem__", "__len__", "to", "reshape", "expand", "expand_as", "clone", "detach", "dim", "size"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__neg__", "type", "double"),
    *("zeros_like", "ones_like", "new_zeros", "new_ones", "as_subclass", "is_floating_point", "__iter__", "unbind"),
}
PRODUCTS = {"mul", "__mul__", "__rmul__"}
SHAPE_ONLY = {"zeros_like", "ones_like", "new_zeros", "new_ones"}


class Form(Tensor):
    """A tensor whose third axis counts values."""


class Tape(TorchFunctionMode):
    """Records a run: `steps` is the program so far."""

    def __init__(self, inputs: int, size: int, axes: int = 1, waves: bool = False) -> None:
        super().__init__()
        self.shape = (1, axes, size) if waves else (1, axes, size, 1)
        self.size, self.count = size, inputs
        self.steps: list[dict[str, Any]] = []
        self.noise = Draws(self)

    def value(self, k: int) -> Form:
        """The form of value k alone."""
        if k >= self.size:
            raise AssertionError(f"more than {self.size} values; the tape was made too short")
        form = torch.zeros(self.shape, dtype=torch.float64)
        form[:, :, k] = 1
        return form.as_subclass(Form)

    def write(self, op: str, **entry: Any) -> int:
        """Append a step that makes one value, whose number is returned."""
        k = self.count
        self.count += 1
        self.steps.append({"op": op, "to": k, **entry})
        return k

    def settled(self, x: Tensor) -> Tensor:
        """The state as a value of its own."""
        return self.value(self.number(x)).expand(x.shape)

    def number(self, x: Tensor) -> int:
        """The value that x is, a new one where it is a sum."""
        terms = self.terms(x)
        return terms[0][0] if len(terms) == 1 and terms[0][1] == 1 else self.write("sum", of=terms)

    def terms(self, x: Tensor, item: int = 0) -> list[list[Any]]:
        """[value, weight] of every value in a form; a list of weights where channels differ."""
        weights = x.detach().as_subclass(Tensor)[item]
        weights = weights[..., 0] if weights.ndim == 3 else weights
        used = weights.any(0).nonzero()[:, 0].tolist()
        columns = [(k, weights[:, k].tolist()) for k in used]
        return [[k, c[0] if len(set(c)) == 1 else c] for k, c in columns]

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        forms = [a for a in _flat([*args, *options.values()]) if isinstance(a, Form)]
        if not forms:
            return func(*args, **options)
        name = func.__name__
        if name in ("clamp", "clip"):
            low, high = (*args, *options.values())[1:]
            return self._clamped(forms[0], float(low), float(high))
        if name in SHAPE_ONLY:
            return func(*args, **options).as_subclass(Tensor)
        if name not in LINEAR or (name in PRODUCTS and len(forms) > 1):
            raise NotLinear(name)
        return func(*args, **options)

    def _clamped(self, x: Tensor, low: float, high: float) -> Tensor:
        if low != -high:
            raise NotLinear("clamp")
        return self.value(self.write("clamp", of=self.terms(x), bound=high)).expand(x.shape)

    def finished(self, x: Tensor) -> dict[str, Any]:
        """The program whose result is x, without the steps that nothing uses."""
        result = self.number(x)
        needed, kept = {result}, []
        for step in reversed(self.steps):
            made = step["to"] if isinstance(step["to"], list) else [step["to"]]
            if needed & set(made):
                kept.append(step)
                needed |= {k for k, _ in step.get("of", ())}
        return {"steps": kept[::-1], "result": result, "draws": self.noise.draws}


class Draws(PositionNoise):
    """Noise by its number in place of its samples."""

    def __init__(self, tape: Tape) -> None:
        super().__init__([0])
        self.tape = tape

    def __call__(self, like: Tensor) -> Tensor:
        draw, self.draws = self.draws, self.draws + 1
        return self.tape.value(self.tape.write("noise", draw=draw)).expand(like.shape)


class NotLinear(InputError):
    """A sampler does more than sums."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"this run cannot be exported: between two network calls it uses '{name}', and the runner only adds; "
            "choose another --sampler, such as ddim, ddpm, euler, heun, dpmpp_2m or pc with corrector=ald"
        )


def _flat(values: Sequence[Any]) -> list[Any]:
    return [x for v in values for x in (_flat(v) if isinstance(v, list | tuple) else [v])]


class Recorded(nn.Module):
    """In the place of a backbone: writes down what it is called with."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape
        self.place = nn.Parameter(torch.zeros(1))  # models ask their parameters for device and dtype

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """A value for each item of the batch; a batch stands for one state under several conditions."""
        tape, items = self.tape, range(len(x))
        made = [tape.count + i for i in items]
        tape.count += len(made)
        signal = condition.signal
        gain = 1.0 if signal is None else float(signal.as_subclass(Tensor)[0, 0].sum() / signal.shape[-1])
        tape.steps.append(
            {"op": "call", "to": made, "of": tape.terms(x), "time": float(t.as_subclass(Tensor)[0]), "gain": gain}
        )
        return torch.cat([tape.value(k) for k in made]).expand(x.shape)


class Given(nn.Module):
    """In the place of a regression network: answers with a value that the runner computes itself."""

    def __init__(self, tape: Tape, k: int) -> None:
        super().__init__()
        self.tape, self.k = tape, k

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The form of that value."""
        return self.tape.value(self.k).expand(x.shape)


class Settling(Sampler):
    """A sampler each of whose steps ends in a value, so that later sums stay short."""

    order = 0

    def __init__(self, sampler: Sampler, tape: Tape) -> None:
        self.sampler, self.tape = sampler, tape
        self.follows = sampler.follows  # pyright: ignore[reportAttributeAccessIssue]

    def evaluations(self, num_steps: int) -> int:
        return self.sampler.evaluations(num_steps)

    def init(self, x: State, times: Tensor) -> Any:
        return self.sampler.init(x, times)

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: Any,
        denoise: Callable[[Tensor, Tensor], Tensor],
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, Any]:
        x, state = self.sampler.step(x, t, s, state, denoise, process, y, noise, last)
        return self.tape.settled(x), state
