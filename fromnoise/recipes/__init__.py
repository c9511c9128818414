"""Recipes: complete typed runs, one file per paper. To add one: a value in such a file, and a line here."""

from fromnoise.recipes import (
    cdiffuse,
    diffsep,
    diffuse,
    diffwave,
    digits,
    dose,
    drdiffuse,
    priorgrad,
    sashimi,
    sc09,
    separate,
    sgmse,
    sounds,
    storm,
    text_to_audio,
    vocode,
)
from fromnoise.recipes.base import DATA, GROUPS, Init, Recipe, from_tree, to_tree
from fromnoise.recipes.bridge import bridge_small
from fromnoise.recipes.debug import tiny, tiny_separator
from fromnoise.recipes.enhance import bridge, small

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(small, bridge, bridge_small, tiny),
        *(drdiffuse.base_small, drdiffuse.concat_small, drdiffuse.concat_gen_small, drdiffuse.diffuse_small),
        *(drdiffuse.refiner_small, drdiffuse.joint_small, drdiffuse.vctk_demand_base, drdiffuse.vctk_demand_concat),
        *(drdiffuse.vctk_demand_concat_gen, drdiffuse.vctk_demand_dual, drdiffuse.vctk_demand_refiner),
        *(drdiffuse.vctk_demand_joint, drdiffuse.vctk_demand_paper),
        *(diffsep.wsj0_2mix, diffsep.wsj0_3mix, diffsep.libri2mix, diffsep.vctk_demand),
        *(sgmse.vctk_demand_16k, sgmse.vctk_demand_48k, sgmse.schrodinger, storm.vctk_demand),
        *(sgmse.small, sgmse.schrodinger_small),
        *(cdiffuse.base, cdiffuse.large, cdiffuse.small, dose.vctk_demand, dose.small),
        *(diffuse.base, diffuse.base_vocoder, diffuse.small),
        *(separate.small, separate.small_regression, tiny_separator),
        *(diffwave.ljspeech_base, diffwave.ljspeech_large, priorgrad.ljspeech),
        *(diffwave.sc09_uncond, diffwave.sc09_small, diffwave.sc09_class, diffwave.sc09_deep_thin, sc09.classifier),
        *(sashimi.sc09_d128, sashimi.sc09_d64, sashimi.ljspeech, sashimi.ljspeech_hop2048),
        *(digits.small, digits.wavenet_small, digits.sashimi_small, digits.classifier),
        *(vocode.small, vocode.wavenet_small),
        *(text_to_audio.sounds_spectral, text_to_audio.sounds_autoencoder, text_to_audio.sounds_small),
        *(text_to_audio.seed_diffae, text_to_audio.seed_diffgen, text_to_audio.birds, sounds.classifier),
        *(text_to_audio.upsampler, text_to_audio.sounds_upsampler, text_to_audio.vocoder),
        *(text_to_audio.sounds_splits,),
    )
}

__all__ = ["DATA", "GROUPS", "RECIPES", "Init", "Recipe", "from_tree", "to_tree"]
