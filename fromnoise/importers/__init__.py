"""Published checkpoints: one file for each layout. Weights-only: nothing inside a file is executed.

>>> imported = import_checkpoints(["ch64_T50_betaT0.05/logs/checkpoint/1000000.pkl"])      # doctest: +SKIP
>>> facts = save(imported, "vocoder")                                                      # doctest: +SKIP
"""

from fromnoise.importers.base import Asked, Imported, Schedule
from fromnoise.importers.convert import LAYOUTS, export, import_checkpoints, require_free, save

__all__ = ["LAYOUTS", "Asked", "Imported", "Schedule", "export", "import_checkpoints", "require_free", "save"]
