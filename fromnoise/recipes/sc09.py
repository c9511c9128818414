"""The ten digits of Speech Commands: the data of free and class-conditional generation, and the classifier that judges.

Warden, "Speech Commands", 2018, https://arxiv.org/abs/1804.03209; the subset is called SC09: 16 kHz, one second,
31,158 training clips in version 0.02. Clips are cut or filled with silence at the end; their level is left alone.

The classifier is the ResNeXt behind the published scores of generated digits: SGD with momentum, weight decay 1e-2,
a tenth of the learning rate when the validation stops improving, 70 passes, every digit equally often.
"""

from fromnoise.backbones.resnext import ResNeXtConfig
from fromnoise.data.clips import Clips
from fromnoise.data.places import DIGITS
from fromnoise.frontends.mel import DEFINITIONS
from fromnoise.recipes.base import Recipe
from fromnoise.training.settings import Optimisation, TrainerSettings

SC09 = Clips(layout="sc09", sample_rate=16000, seconds=1.0, labels=DIGITS)
SC09_LICENCE = "CC BY 4.0 (Speech Commands)"

classifier = Recipe(
    name="sc09/classifier",
    task="classify",
    mel=DEFINITIONS["sc09-16k"],
    network=ResNeXtConfig(),
    labels=DIGITS,
    data=Clips(layout="sc09", sample_rate=16000, seconds=1.0, labels=DIGITS, balanced=True),
    scores=("accuracy",),
    optimisation=Optimisation("sgd", 1e-2, 1e-2, schedule="plateau", ema=0.0),
    trainer=TrainerSettings(
        max_epochs=70,
        steps_per_epoch=325,
        batch_size=96,
        valid_batch_size=96,
        gradient_clip_val=0.0,
        num_workers=4,
        monitor="valid/accuracy",
        mode="max",
    ),
    model_name="sc09-classifier",
    licence=SC09_LICENCE,
)
