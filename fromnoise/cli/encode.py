"""`fromnoise encode`: the clips of a recipe as latents of its autoencoder, once, for trainings on them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fromnoise.recipes import Recipe
    from fromnoise.tasks import GenerationModel


def command(
    settings: Annotated[list[str], typer.Argument(help="recipe=NAME and key=value ..., as for the training.")],
    output: Annotated[Path, typer.Option("--output", "-o", "--out", metavar="OUT", help="A folder.")],
    passes: Annotated[
        int, typer.Option(metavar="P", help="How often each clip is encoded, cut and changed anew each time.")
    ] = 1,
    batch_size: Annotated[int, typer.Option(metavar="B", help="Clips encoded at once.")] = 16,
    device: common.Device = "auto",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Encode the clips that a generator of latents is to be trained on, so that no training step has to.

    Training on them sees the clips as the recipe cuts and changes them, P times over; then they come again.

    Examples:

    fromnoise encode recipe=text_to_audio/sounds_small data.root=SOUNDS init.autoencoder=runs/ae --passes 8 -o latents

    fromnoise train recipe=text_to_audio/sounds_small init.autoencoder=runs/ae data=latents data.root=latents
    """  # fmt: skip
    from fromnoise.cli.train import recipe_of
    from fromnoise.data.latents import FACTS, FORMAT, fingerprint, write_latents
    from fromnoise.files import write_whole
    from fromnoise.tasks import GenerationModel
    from fromnoise.training.run import build_model
    from fromnoise.types import InputError

    voice = common.Voice(quiet, as_json)
    recipe, _ = recipe_of(settings, None)
    _require_encodable(recipe, passes, batch_size)
    if (output / FACTS).exists():
        raise InputError(f"{output} holds latents already; choose another folder, or remove it")
    model, taken = build_model(recipe)
    assert isinstance(model, GenerationModel) and model.autoencoder is not None
    for part in taken:
        voice.say(f"took over {part}")
    model.to(common.choose_device(device)).eval()
    shapes = {}
    for split, items in {"train": recipe.data.train(recipe.seed), "valid": recipe.data.valid()}.items():
        count = passes * len(items.found) if split == "train" else len(items)
        with voice.progress(split) as progress, common.explained_memory("--batch-size"):
            shapes[split] = write_latents(output, split, count, _encoded(model, items, count, batch_size, progress))
    facts = {
        "format": FORMAT,
        "recipe": recipe.name,
        "autoencoder": fingerprint(model.autoencoder.state_dict()),
        "sample_rate": recipe.sample_rate,
        "seconds": recipe.data.seconds,
        "labels": list(recipe.data.labels),
        "captions": list(recipe.data.captions),
        "passes": passes,
        "shapes": shapes,
    }
    write_whole(output / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
    if as_json:
        voice.hand_over({"output": output, **facts})
    voice.say(
        f"{output}: {shapes['train'][0]} latents to train on, {shapes['valid'][0]} to validate, {shapes['train'][1:]}"
    )


def _require_encodable(recipe: "Recipe", passes: int, batch_size: int) -> None:
    """Raises InputError for a recipe without latents, or data that are not clips."""
    from fromnoise.data.clips import Clips
    from fromnoise.types import InputError

    if recipe.task != "generate" or recipe.latent is None:
        raise InputError(f"{recipe.name} generates no latents; choose a recipe of latents, text_to_audio/sounds_small")
    if not isinstance(recipe.data, Clips):
        raise InputError("latents are made of clips; choose data=clips")
    if not recipe.init.autoencoder:
        raise InputError("expected a trained autoencoder, got none; set init.autoencoder=FOLDER")
    if recipe.data.sample_rate != recipe.sample_rate:
        raise InputError(f"expected clips of {recipe.sample_rate} Hz, got data.sample_rate={recipe.data.sample_rate}")
    if passes < 1 or batch_size < 1:
        raise InputError(f"expected --passes and --batch-size of at least 1, got {passes} and {batch_size}")


def _encoded(
    model: "GenerationModel", items: Any, count: int, size: int, progress: Any
) -> "Iterator[tuple[np.ndarray, dict[str, Tensor]]]":
    """Latents of items 0 to count - 1, and what the batches hold besides."""
    import torch
    from torch.utils.data import default_collate

    device = next(model.parameters()).device
    for done in range(0, count, size):
        batch = default_collate([items[k] for k in range(done, min(done + size, count))])
        with torch.inference_mode():
            latent = model.frontend.encode(batch.pop("clean").to(device))
        progress(min(done + size, count), count)
        yield latent.float().cpu().numpy(), batch
