"""unet1d against outputs of audio-diffusion-pytorch 0.1.3 on a-unet 0.0.16; float64, atol 1e-9, rtol 1e-7."""

import dataclasses

import pytest
import torch

from fromnoise.backbones import UNet1dConfig
from fromnoise.importers import unet1d as names
from fromnoise.types import Condition
from tests.t2a_vectors import Vector, outputs

FIELDS = {field.name for field in dataclasses.fields(UNet1dConfig)}
EMPTY = Condition()


def config_of(given, **changes):
    """The published settings, which have our names; the table for no text is a length here, not a switch as well."""
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items() if key in FIELDS}
    return UNet1dConfig(**fields | changes)


def loaded(vector, prefix="", given=None, **changes):
    with torch.device("cpu"):
        network = config_of(given or vector.config, **changes).build().double()
    return vector.load(network, names.names(network), prefix)


@pytest.fixture(scope="module")
def tiny():
    vector = Vector("t2a_unet_tiny")
    return vector, loaded(vector, vector_dim=16)


def told(published, mask=True, **changes):
    """The condition of the file, every item told by the first length of its embedding."""
    context = published["in.embedding"]
    mask = torch.full(context.shape[:2], mask) if isinstance(mask, bool) else mask
    fields = {
        "frames": published["in.context"],
        "context": context,
        "mask": mask,
        "vector": torch.zeros(2, 16).double(),
    }
    return Condition(**fields | changes)


def run(tiny, condition, time="in.time"):
    vector, network = tiny
    with torch.no_grad():
        return network(vector["in.x"], vector[time], condition)


def test_all_items_with_frames_and_context(tiny):
    vector, network = tiny
    level, parts = network.top.inner, {}
    for k, item in enumerate([level.down, *level.items_down]):
        parts[f"trace.block1.item{k}"] = item
    below = 2 + len(level.items_down)  # the level below is an item as well
    for k, item in enumerate([*level.items_up, level.up], below):
        parts[f"trace.block1.item{k}"] = item
    parts |= {
        "trace.block1.item9": level.inner,
        "trace.block2.output": level.inner,
        "trace.block1.output": level,
        "trace.block0.output": network.top,
    }
    parts |= {"trace.block0.before_skip": network.top.up, "trace.block2.before_skip": level.inner.up}
    found = outputs(network, parts, lambda: vector.check(run(tiny, told(vector)), "y_cond"))
    assert len(found) == len(parts) == 24
    for name, value in found.items():
        vector.check(value, name)


def test_guidance_is_two_halves_of_one_batch(tiny):
    vector, network = tiny
    shown = network.nothing[: vector["in.embedding"].shape[1]].expand(2, -1, -1)
    torch.testing.assert_close(shown, vector["out.fixed_embedding"], rtol=0, atol=0)
    free = run(tiny, told(vector, context=shown))  # as published: as many rows as the text has
    vector.check(free, "y_uncond")
    vector.check(free + 3 * (run(tiny, told(vector)) - free), "y_cfg3")
    rows = vector["in.batch_mask"].bool()
    vector.check(run(tiny, told(vector, context=torch.where(rows, shown, vector["in.embedding"]))), "y_masked")


def test_an_item_without_text_gets_the_whole_table(tiny):
    vector, network = tiny
    nothing = network.nothing[None].expand(2, -1, -1)
    full = run(tiny, told(vector, context=nothing, mask=None))
    context = vector["in.embedding"]
    half = torch.tensor([[True] * 4, [False] * 4])
    both = run(tiny, told(vector, half))
    torch.testing.assert_close(both[1], full[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both[0], vector["out.y_cond"][0], rtol=1e-7, atol=1e-9)
    absent = run(tiny, told(vector, context=None, mask=None))
    torch.testing.assert_close(absent, full, rtol=1e-10, atol=1e-12)
    longer = torch.nn.functional.pad(context, (0, 0, 0, 9), value=7.0)  # padding is not attended to
    mask = torch.arange(13)[None] < torch.tensor([[4], [0]])
    torch.testing.assert_close(run(tiny, told(vector, mask, context=longer)), both, rtol=1e-10, atol=1e-12)


def test_without_a_table_an_item_without_text_attends_to_nothing():
    vector = Vector("t2a_diffgen_cfg")
    given = vector.config | {"embedding_max_length": 0}
    torch.manual_seed(0)
    network = config_of(given).build().double()
    mask = torch.tensor([[True] * 6, [False] * 6])
    x, t, context = vector["in.latent"], vector["in.sigmas"], vector["in.embedding"]
    with torch.no_grad():
        both = network(x, t, Condition(context=context, mask=mask))
        told = network(x, t, Condition(context=context))
        for item in network.modules():
            if getattr(item, "crosses", False):
                item.out.weight.zero_()
        silent = network(x, t, Condition(context=context))
    torch.testing.assert_close(both[0], told[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both[1], silent[1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(told[1], silent[1])


def test_time_and_features(tiny):
    vector, network = tiny
    with torch.no_grad():
        vector.check(network.time.embedded(vector["in.time"]), "number_embedding")
        vector.check(network.time(vector["in.time"]), "time_features")
    vector.check(run(tiny, told(vector, vector=vector["in.features"])), "y_features")
    vector.check(run(tiny, told(vector), "in.time_2d"), "y_time2d")


@pytest.mark.parametrize("name", ["t2a_unet_2d", "t2a_unet_skipcat"])
def test_two_dimensions_and_concatenating_skips(name):
    vector = Vector(name)
    time = vector["in.time"] if "in.time" in vector.arrays else torch.zeros(2).double()
    with torch.no_grad():
        vector.check(loaded(vector)(vector["in.x"], time, EMPTY), "y")


def test_learned_transform():
    vector = Vector("t2a_lt_plugin")
    network = loaded(vector, **vector.config["plugin"])
    with torch.no_grad():
        encoded = network.encode(vector["in.x"])
        vector.check(encoded, "encoded")
        vector.check(network.decoder(encoded), "decode_of_encoded")
        inner = outputs(network, {"unet": network.top}, lambda: network(vector["in.x"], vector["in.time"], EMPTY))
        vector.check(inner["unet"], "unet")
        vector.check(network(vector["in.x"], vector["in.time"], EMPTY), "y")


def test_published_loss_and_gradients_of_the_generator():
    vector = Vector("t2a_diffgen_cfg")
    network = loaded(vector, "net.")
    x, e, t = vector["in.latent"], vector["in.noise"], vector["in.sigmas"]
    a, b = torch.cos(torch.pi * t / 2)[:, None, None], torch.sin(torch.pi * t / 2)[:, None, None]
    rows = ~vector["in.batch_mask"][:, :, 0].bool()  # True where the text is told
    mask = rows.expand(-1, vector["in.embedding"].shape[1])
    for told_rows, key in ((mask, "loss_masked"), (torch.ones_like(mask), "loss_plain")):
        network.zero_grad()
        v = network(a * x + b * e, t, Condition(context=vector["in.embedding"], mask=told_rows))
        loss = (v - (a * e - b * x)).square().mean()
        vector.check(loss.detach(), key)
        if key == "loss_masked":
            loss.backward()
            own = dict(network.named_parameters())
            norms = {there: own[mine].grad.norm() for mine, there in names.names(network).items()}
            ordered = torch.stack([norms[name.removeprefix("net.")] for name in sorted(vector.shapes)])
            vector.check(ordered, "grad_norms")


def test_gradient_checkpointing_changes_nothing():
    vector = Vector("t2a_diffgen_cfg")
    gradients = []
    for checkpointing in (False, True):
        network = loaded(vector, "net.", checkpointing=checkpointing).train()
        told = Condition(context=vector["in.embedding"])
        network(vector["in.latent"], vector["in.sigmas"], told).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


SMALL = {"channels": (8, 8), "factors": (1, 2), "items": (1, 1), "resnet_groups": 4, "modulation_features": 16}


def test_any_length_is_the_start_of_a_longer_one_filled_with_zeros():
    torch.manual_seed(0)
    network = UNet1dConfig(1, 1, 0, (8, 8), (2, 3), (1, 1), context_channels=(3, 0), modulation_features=16).build()
    x, t, frames = torch.randn(2, 1, 7), torch.rand(2), torch.randn(2, 3, 4)
    with torch.no_grad():
        short = network(x, t, Condition(frames=frames))
        whole = network(
            torch.nn.functional.pad(x, (0, 5)), t, Condition(frames=torch.nn.functional.pad(frames, (0, 2)))
        )
    torch.testing.assert_close(short, whole[..., :7], rtol=0, atol=0)
    for count in (3, 7):
        with pytest.raises(ValueError, match="one frame of the condition per 2 positions"):
            network(x, t, Condition(frames=torch.randn(2, 3, count)))


def test_a_bound_condition_is_made_once():
    vector = Vector("t2a_diffgen_cfg")
    network = loaded(vector, "net.")
    calls = []
    for item in network.modules():
        if hasattr(item, "pairs"):
            item.pairs.register_forward_hook(lambda module, given, out: calls.append(given[0].shape[-1]))
    with torch.no_grad():
        bound = network.bind(Condition(context=vector["in.embedding"]))
        assert calls.count(10) == 6  # both sides of one and two cross-attentions
        for _ in range(3):
            bound(vector["in.latent"], vector["in.sigmas"])
    assert calls.count(10) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (8, 12), "resnet_groups": 8}, "multiples of resnet_groups=8, got 12"),
        ({"items": (1,)}, "expected 2 items"),
        ({"cross_attentions": (0, 1)}, "embedding_features"),
        ({"use_modulation": False}, "time is told by modulation"),
        ({"context_channels": (2, 2)}, "at one level"),
        ({"num_filters": 2, "window_length": 7, "stride": 4}, "window_length - stride even"),
    ],
)
def test_impossible_settings_say_why(changes, message):
    with pytest.raises(ValueError, match=message):
        UNet1dConfig(**SMALL | changes)
