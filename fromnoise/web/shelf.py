"""The models that a page offers, by tab, and what "draft", "standard" and "best" mean for each.

A model is called what it was called when the page was started, so that the command the page shows is the one to type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fromnoise import hub
from fromnoise.types import InputError

TABS = ("enhance", "separate", "vocode", "generate", "text")
QUALITIES = ("draft", "standard", "best")


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen; `tab` is where."""

    name: str
    tab: str
    card: Mapping[str, Any]


def tab_of(card: Mapping[str, Any]) -> str:
    """The tab of a model: its task, or "text" where its generator is told texts."""
    return "text" if card["task"] == "generate" and card["config"].get("text") else card["task"]


def bundled(tab: str) -> list[str]:
    """The bundled models of a tab."""
    return [card["name"] for card in hub.list_models() if tab_of(card) == tab]


class Shelf:
    """names: bundled names, folders or hub ids; none stands for all bundled models. Raises InputError for a model that
    cannot be found, or that has no tab.
    """

    def __init__(self, names: Sequence[str] = (), device: str | torch.device = "cpu") -> None:
        cards = {name: hub.read_card(hub.locate(name)) for name in names}
        if not names:
            cards = {card["name"]: card for card in hub.list_models() if tab_of(card) in TABS}
        for name, card in cards.items():
            if tab_of(card) not in TABS:
                raise InputError(
                    f"the model {name!r} is for the task {card['task']!r}; the page has: {', '.join(TABS)}"
                )
        self.offers = tuple(Offer(name, tab_of(card), card) for name, card in cards.items())
        self.device = device
        self._ready: dict[str, Any] = {}

    def names(self, tab: str) -> list[str]:
        """The models of a tab."""
        return [offer.name for offer in self.offers if offer.tab == tab]

    def load(self, tab: str, name: str | None) -> Any:
        """The ready model. Raises InputError for one that the tab does not offer."""
        if name is None or name not in self.names(tab):
            known = ", ".join(self.names(tab)) or "none"
            raise InputError(f"no model {name!r} here; the models that this page has for {tab} are: {known}")
        if name not in self._ready:
            self._ready[name] = hub.load(name, self.device)
        return self._ready[name]


def steps_of(ready: Any, quality: str, steps: int | None = None, sampler: str | None = None) -> int | None:
    """The number of steps to ask for, None for the model's own: half of them, its own, or twice as many.

    A model that takes one step was made for one: all qualities are the same. steps: what the user asked for instead.
    """
    if quality not in QUALITIES:
        raise InputError(f"unknown quality {quality!r}; choose one of: {', '.join(QUALITIES)}")
    own = ready.model.default_run(steps, sampler).num_steps  # a number or a sampler that cannot be ends here
    if steps is not None or quality == "standard" or own == 1:
        return steps
    if quality == "draft":
        return math.ceil(own / 2)
    try:
        return ready.model.default_run(2 * own, sampler).num_steps
    except ValueError:  # a grid of trained steps has no more
        return None


def meaning(ready: Any) -> str:
    """What the qualities are for this model, in words."""
    own = ready.model.default_run().num_steps
    counts = [steps_of(ready, quality) or own for quality in QUALITIES]
    if len(set(counts)) == 1:
        return f"This model was made for {own} step{'s' if own > 1 else ''}: all qualities are the same."
    return "Sampling steps: " + ", ".join(f"{q} {n}" for q, n in zip(QUALITIES, counts, strict=True)) + "."
