"""Recipes: complete typed runs, one file per paper. To add one: a value in such a file, and a line here."""

from fromnoise.recipes import diffwave, digits, priorgrad, sashimi, sc09, vocode
from fromnoise.recipes.base import DATA, GROUPS, Init, Recipe, from_tree, to_tree
from fromnoise.recipes.bridge import bridge_small
from fromnoise.recipes.debug import tiny
from fromnoise.recipes.drdiffuse import base_small, base_vctk, diffuse_small, refiner_small
from fromnoise.recipes.enhance import bridge, small

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(small, bridge, base_small, base_vctk, diffuse_small, refiner_small, bridge_small, tiny),
        *(diffwave.ljspeech_base, diffwave.ljspeech_large, priorgrad.ljspeech),
        *(diffwave.sc09_uncond, diffwave.sc09_small, diffwave.sc09_class, diffwave.sc09_deep_thin, sc09.classifier),
        *(sashimi.sc09_d128, sashimi.sc09_d64, sashimi.ljspeech, sashimi.ljspeech_hop2048),
        *(digits.small, digits.wavenet_small, digits.sashimi_small, digits.classifier),
        *(vocode.small, vocode.wavenet_small),
    )
}

__all__ = ["DATA", "GROUPS", "RECIPES", "Init", "Recipe", "from_tree", "to_tree"]
