"""The benchmarks of sounds from texts measure what they say, on tiny networks."""

import numpy as np
import pytest
import torch

from benchmarks import decode_memory, guided, solvers
from fromnoise import hub
from fromnoise.tasks import GenerationModel, Generator
from tests.tasks.test_autoencoder import GENERATE, RATE
from tests.tasks.test_autoencoder import make as make_autoencoder
from tests.tasks.test_text import make as make_generator


def test_one_pass_gives_what_two_passes_give():
    generator = make_generator()
    line = guided.line_of(generator, generator.asked(text="rain", guidance=guided.GUIDANCE), 2, None, rounds=3)
    assert line.difference < 1e-5  # float32, sums in another order
    assert min(line.one_pass, line.two_passes, line.speed_up) > 0
    assert "| 2 |" in guided.table([line])


def test_a_setting_samples_and_decodes_as_it_says():
    torch.manual_seed(0)
    generator = Generator(GenerationModel(GENERATE.model_config()))
    asked = {"label": None, "text": "rain", "seed": 1, "guidance": None, "batch_size": 2}
    setting = solvers.Setting(generator, "heun/3+ddim/5")
    assert setting.network_calls(None, None) == generator.network_calls(3, "heun")
    (made,) = setting.batches(2, **asked)
    wanted = generator.decoding(5, "ddim")(2, text="rain", seed=1, steps=3, sampler="heun")
    np.testing.assert_array_equal(made, wanted)
    (plain,) = solvers.Setting(generator, "heun/3").batches(2, **asked)
    assert np.abs(plain - made).max() > 1e-6
    with pytest.raises(SystemExit, match="expected SAMPLER/STEPS, got 'ddim'"):
        solvers.Setting(generator, "ddim")


def test_decoding_says_how_much_it_needed(tmp_path):
    model = make_autoencoder().model
    card = {"task": "autoencode", "name": "ae", "config": hub.config_dict(model.config)}
    hub.save(model, card, tmp_path / "ae")
    row = decode_memory.decode_once(str(tmp_path / "ae"), 1.5, 0.2, 1)
    assert row["seconds"] == pytest.approx(1.5, abs=8 / RATE)
    assert row["peak_mib"] >= row["before_mib"] > 0
    assert "| in pieces | 1.5 |" in decode_memory.table([{"how": "in pieces", **row}])
