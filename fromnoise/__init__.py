"""Fromnoise: diffusion models for audio in one toolkit."""

from typing import Any

__version__ = "0.1.0"
_LAZY = dict.fromkeys(("load", "list_models", "from_pretrained", "save_pretrained", "push_to_hub"), "hub")


def __getattr__(name: str) -> Any:
    """The public functions, imported on first use so that `import fromnoise` costs nothing."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"fromnoise.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'fromnoise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
