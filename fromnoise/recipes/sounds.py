"""The judge of everyday sounds: which of 24 sounds a clip of three seconds is.

`data.root` is a folder with metadata.csv (columns file, label, split, licence): the ten classes of ESC-10 (Piczak,
"ESC: Dataset for Environmental Sound Classification", 2015) with about twenty clips each to train on, and rarer ones
with one to eight. Rows whose licence has "NC" in it are not used. Classes come as often as they are in the data. The
clips of short events are digital silence elsewhere, which no generator gives, so all below -50 dB of a clip's loudest
point looks alike.
"""

from fromnoise.backbones.resnext import ResNeXtConfig
from fromnoise.data.clips import Clips
from fromnoise.frontends import Mel
from fromnoise.recipes.base import Recipe
from fromnoise.training.settings import Optimisation, TrainerSettings

ESC10 = ("baby_cry", "chainsaw", "clock_tick", "dog", "fire", "helicopter", "rain", "rooster", "sea_waves", "sneeze")
SOUNDS = (
    *ESC10,
    *("airplane", "birds", "city", "crickets", "dishes", "european_robin", "leaves", "running_tap", "stream"),
    *("thunderstorm", "train", "water_drops", "waterfall", "wind"),
)

classifier = Recipe(
    name="sounds/classifier",
    task="classify",
    mel=Mel(16000, 1024, 800, 1024, 48, fmax=None, power=2.0, log="10", multiplier=10.0, floor=1e-10),
    network=ResNeXtConfig(20, 4, 16, 1),
    labels=SOUNDS,
    seconds=3.0,
    decibels=50.0,
    noise=0.3,
    data=Clips(sample_rate=16000, seconds=3.0, fixed=False, labels=SOUNDS, without_licence="NC"),
    scores=("accuracy",),
    optimisation=Optimisation("adamw", 2e-3, 1e-2, warmup_steps=50, ema=0.99),
    trainer=TrainerSettings(max_epochs=25, steps_per_epoch=32, batch_size=32, valid_batch_size=37),
    model_name="sounds-classifier",
    licence="CC BY 4.0 (trained on clips under CC0 and CC BY of ESC-10 and others, credited in the data's table)",
)
