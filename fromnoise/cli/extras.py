"""What must be installed and what may be: package names as pip knows them -> module names as Python imports them.

The table equals the one in pyproject.toml (a test compares them). It is kept here because an installed package does not
tell which module a distribution brings when that distribution is absent.
"""

import importlib.util

CORE = {
    "torch": "torch",
    "numpy": "numpy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "typer": "typer",
    "rich": "rich",
    "jaxtyping": "jaxtyping",
}

EXTRAS = {
    "train": {"lightning": "lightning", "hydra-core": "hydra", "tensorboard": "tensorboard"},
    "metrics": {
        "scipy": "scipy",
        "pystoi": "pystoi",
        "matplotlib": "matplotlib",
        "onnxruntime": "onnxruntime",
        "speechmos": "speechmos",
        "pesq": "pesq",
    },
    "export": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "formats": {"av": "av"},
    "text": {"transformers": "transformers"},
    "web": {"gradio": "gradio", "matplotlib": "matplotlib"},
    "wandb": {"wandb": "wandb"},
    "scale": {"ray": "ray"},
}

# Their wheels are CUDA builds: beside a CPU torch they break themselves and everything that probes for them.
UNWANTED = {"torchaudio", "torchvision", "torchcodec"}


def missing(extra: str) -> list[str]:
    """The packages of an extra that cannot be found; nothing is imported."""
    return [package for package, module in EXTRAS[extra].items() if importlib.util.find_spec(module) is None]


def install_command(extra: str) -> str:
    """The shell command that adds an extra."""
    return f"pip install 'fromnoise[{extra}]'"


def extra_of(module: str) -> str | None:
    """The extra that brings an importable module (or a part of it), None when no extra does."""
    top = module.partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if top in packages.values()), None)
