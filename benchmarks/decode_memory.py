"""Memory of an autoencoder's decoding against the length of the sound: in pieces, and all at once.

    python -m benchmarks.decode_memory --seconds 5,10,20,40 --steps 2 --threads 1
    python -m benchmarks.decode_memory --model runs/ae --seconds 5,10,20,40

Each length has a process of its own; its largest resident set before and after one decoding is reported. More steps
take longer and no more memory. Without --model: the network of text_to_audio/sounds_autoencoder with random weights.
"""

import json
import subprocess
import sys
import time

import torch

from benchmarks.harness import arguments, markdown, peak_mib, publish

RECIPE = "text_to_audio/sounds_autoencoder"


def decode_once(model: str, seconds: float, segment: float | None, steps: int) -> dict[str, float]:
    """One decoding of so many seconds, in this process. segment: of the pieces, None for the model's own."""
    import dataclasses

    import fromnoise
    from fromnoise.recipes import RECIPES
    from fromnoise.tasks import Autoencoder, AutoencodingModel

    if model:
        ready = fromnoise.load(model)
        found = ready.model if isinstance(ready, Autoencoder) else ready.model.autoencoder
        assert isinstance(found, AutoencodingModel), f"{model} holds no autoencoder"
    else:
        found = AutoencodingModel(RECIPES[RECIPE].model_config())
    if segment is not None:
        found.config = dataclasses.replace(found.config, segment=segment)
    autoencoder = Autoencoder(found)
    positions = -(-round(seconds * autoencoder.sample_rate) // found.hop)
    latent = torch.randn(found.latent_channels, positions, generator=torch.Generator().manual_seed(0)).numpy()
    autoencoder.decode(latent[:, :2], steps=1)  # what is loaded on first use is not the length's
    before, begun = peak_mib(), time.perf_counter()
    wave = autoencoder.decode(latent, steps=steps)
    return {"seconds": wave.shape[1] / autoencoder.sample_rate, "before_mib": before, "peak_mib": peak_mib()} | {
        "work_seconds": time.perf_counter() - begun
    }


def measured(arguments: list[str]) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.decode_memory", "--inside", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict[str, float | str]]) -> str:
    """Markdown."""
    columns = ("decoded", "sound, s", "before, MiB", "peak, MiB", "of which the decoding", "work, s")
    lines = (
        (
            f"{r['how']}",
            f"{r['seconds']:.1f}",
            f"{r['before_mib']:.0f}",
            f"{r['peak_mib']:.0f}",
            f"{float(r['peak_mib']) - float(r['before_mib']):.0f}",
            f"{r['work_seconds']:.1f}",
        )
        for r in rows
    )
    return markdown(columns, lines)


def main() -> None:
    """Print the table, and write it."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="", help="an autoencoder, or a generator of latents")
    parser.add_argument("--seconds", default="5,10,20,40")
    parser.add_argument("--segment", type=float, help="seconds of a piece; without it the model's own")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--inside", action="store_true", help="decode in this process, print JSON, stop")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.inside:
        print(json.dumps(decode_once(given.model, float(given.seconds), given.segment, given.steps)))
        return
    rows = []
    common = ["--model", given.model, "--steps", str(given.steps), "--threads", str(given.threads)]
    ways = {"in pieces": [] if given.segment is None else ["--segment", str(given.segment)]}
    ways["at once"] = ["--segment", "0"]
    for how, segment in ways.items():
        for seconds in given.seconds.split(","):
            rows.append({"how": how, **measured([*common, *segment, "--seconds", seconds])})
            print(rows[-1], file=sys.stderr, flush=True)
    head = f"{given.model or RECIPE}, {given.steps} steps, {given.threads} thread(s), torch {torch.__version__}"
    publish(head, table(rows), rows, given.output)


if __name__ == "__main__":
    main()
