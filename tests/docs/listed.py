"""Which examples of the documentation are not run as they stand, and why. They are parsed all the same."""

# Part of a command line -> why it is not run.
NOT_RUN = {
    "fromnoise web": "serves until it is stopped; tests/web runs it in a browser",
    "fromnoise doctor": "its exit code tells of what is installed; tests/cli/test_doctor.py runs it",
    "fromnoise encode": "needs a trained autoencoder; tests/tasks/test_text_latents.py encodes small ones",
    "--engine ray": "starts Ray, which takes long; tests/cli/test_corpus_ray.py has one",
    "fromnoise models user/name": "needs a hub",
    "cuda:0,cuda:1": "needs two GPUs",
    "fromnoise train runs/": "needs a run that was begun; tests/tasks/test_training.py goes on with one",
    "runs/diffwave/": "needs a training of days",
    "fromnoise pack": "needs a corpus; tests/tasks/test_shards.py packs one",
    "--steps 6,50": "needs a training of days",
    "fromnoise convert checkpoint.pt": "needs a published file; tests/oracles convert files of every layout",
    "fromnoise separate talk.wav -m separator": "the same",
    "ch128_T200_betaT0.02/…": "the dots stand for a folder's name",
    "--jobs 8": "starts eight processes; tests/cli/test_corpus.py compares the same work by two with that by one",
    "concat,concat_generator,dual,guided": "takes the models of benchmarks/enhancers.py, hours of training",
    "fromnoise evaluate FOLDER": "takes a copy of a model with another card",
}
# Training by these is real; by all others it takes hours, and data: their settings are put together, no more.
TRAINED = ("recipe=debug/tiny",)
# Part of a command line -> what stands there when it is run: less of the same.
SHORTER = {
    "-m runs/...": "-m runs/concat",
    "--label all -n 500": "--label all -n 1",
    "-n 500": "-n 1",
    "-n 20 --sampler ddim,dpmpp_2m,heun --steps 4,8,12": "-n 1 --sampler ddim,dpmpp_2m,heun --steps 1,2",
    "--steps 30": "--steps 2",
    "--steps 1,2,4,8,16,30": "--steps 1,2",
    "--limit 40 --seeds 3": "--limit 2 --seeds 2 --seconds 0.5",
    "diagnose enhance-small DATA": "diagnose runs/concat DATA --limit 2 --seconds 0.5",
    "diagnose enhance-small PAIRS": "diagnose runs/concat PAIRS --limit 2 --seconds 0.5",
    "export enhance-small": "export runs/concat",
    "recipe=debug/tiny": "recipe=debug/tiny trainer.max_epochs=1 trainer.steps_per_epoch=1 logger=csv",
}
# Page and first line of a block of Python -> why it is not run; its names and arguments are checked.
NOT_RUN_PYTHON = {
    ("extending.md", ""): "tests/architecture/test_docs.py runs the whole page in a process of its own",
    ("hub.md", "import fromnoise"): "needs a hub; tests/tasks/test_hub.py has one",
    ("metrics.md", "from pathlib import Path"): "needs BirdNET's file, which its authors give",
}
# docs/web.md's call of the page's HTTP interface, which tests/web makes.
WEB = ("curl ", "PAGE=", "SOUND=", "ASKED=", "EVENT=", "RESULT=")
# Programs other than fromnoise that examples call, and what is known of them.
OTHERS = ("pip install", "make ", "torchrun ", "python -m benchmarks.", *WEB)
