"""Recipes: complete typed runs, one file per paper. To add one: a value in such a file, and a line here."""

from fromnoise.recipes.base import DATA, GROUPS, Init, Recipe, from_tree, to_tree
from fromnoise.recipes.bridge import bridge_small
from fromnoise.recipes.debug import tiny
from fromnoise.recipes.drdiffuse import base_small, base_vctk, diffuse_small, refiner_small
from fromnoise.recipes.enhance import bridge, small

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (small, bridge, base_small, base_vctk, diffuse_small, refiner_small, bridge_small, tiny)
}

__all__ = ["DATA", "GROUPS", "RECIPES", "Init", "Recipe", "from_tree", "to_tree"]
