"""Samplers and time grids. One line here makes a new one known to recipes, the command line and the laws' tests."""

from fromnoise.samplers.ancestral import DDIM, DDPM, Ancestral
from fromnoise.samplers.base import Denoise, Noise, Sampler
from fromnoise.samplers.grids import GRIDS, Grid, Karras, Levels, Log, LogSNR, Quadratic, Steps, Trained, Uniform
from fromnoise.samplers.noise import PositionNoise
from fromnoise.samplers.ode import DPMpp2M, Euler, Heun
from fromnoise.samplers.pc import PredictorCorrector
from fromnoise.samplers.supported import DOSE, Supportive

SAMPLERS: dict[str, type[Sampler]] = {
    "ancestral": Ancestral,
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpmpp_2m": DPMpp2M,
    "pc": PredictorCorrector,
    "supportive": Supportive,
    "dose": DOSE,
}

__all__ = [
    "DDIM",
    "DDPM",
    "DOSE",
    "GRIDS",
    "SAMPLERS",
    "Ancestral",
    "DPMpp2M",
    "Denoise",
    "Euler",
    "Grid",
    "Heun",
    "Karras",
    "Levels",
    "Log",
    "LogSNR",
    "Noise",
    "PositionNoise",
    "PredictorCorrector",
    "Quadratic",
    "Sampler",
    "Steps",
    "Supportive",
    "Trained",
    "Uniform",
]
