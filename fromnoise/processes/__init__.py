"""Processes: how clean data turns into noise. One line here makes a new one known to recipes, cards and tests."""

from fromnoise.processes.base import Prior, Process, Weights
from fromnoise.processes.bridge import Bridge
from fromnoise.processes.flow import Flow
from fromnoise.processes.interpolating import Interpolating
from fromnoise.processes.mixing import Mixing
from fromnoise.processes.ou import OUVE, VE
from fromnoise.processes.vp import VP, VPAngular

PROCESSES: dict[str, type[Process]] = {
    "vp": VP,
    "vp_angular": VPAngular,
    "interpolating": Interpolating,
    "ve": VE,
    "ouve": OUVE,
    "bridge": Bridge,
    "flow": Flow,
    "mixing": Mixing,
}

__all__ = [
    "OUVE",
    "PROCESSES",
    "VE",
    "VP",
    "Bridge",
    "Flow",
    "Interpolating",
    "Mixing",
    "Prior",
    "Process",
    "VPAngular",
    "Weights",
]
