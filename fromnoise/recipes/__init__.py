"""Recipes: complete typed runs, one file per paper. To add one: a value in such a file, and a line here."""

from fromnoise.recipes import diffsep, diffwave, digits, priorgrad, sashimi, sc09, separate, sgmse, storm, vocode
from fromnoise.recipes.base import DATA, GROUPS, Init, Recipe, from_tree, to_tree
from fromnoise.recipes.bridge import bridge_small
from fromnoise.recipes.debug import tiny, tiny_separator
from fromnoise.recipes.drdiffuse import base_small, base_vctk, diffuse_small, refiner_small
from fromnoise.recipes.enhance import bridge, small

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(small, bridge, base_small, base_vctk, diffuse_small, refiner_small, bridge_small, tiny),
        *(diffsep.wsj0_2mix, diffsep.wsj0_3mix, diffsep.libri2mix, diffsep.vctk_demand),
        *(sgmse.vctk_demand_16k, sgmse.vctk_demand_48k, sgmse.schrodinger, storm.vctk_demand),
        *(separate.small, separate.small_regression, tiny_separator),
        *(diffwave.ljspeech_base, diffwave.ljspeech_large, priorgrad.ljspeech),
        *(diffwave.sc09_uncond, diffwave.sc09_small, diffwave.sc09_class, diffwave.sc09_deep_thin, sc09.classifier),
        *(sashimi.sc09_d128, sashimi.sc09_d64, sashimi.ljspeech, sashimi.ljspeech_hop2048),
        *(digits.small, digits.wavenet_small, digits.sashimi_small, digits.classifier),
        *(vocode.small, vocode.wavenet_small),
    )
}

__all__ = ["DATA", "GROUPS", "RECIPES", "Init", "Recipe", "from_tree", "to_tree"]
