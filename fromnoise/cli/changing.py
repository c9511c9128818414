"""What `fromnoise generate` does with a recording: begin from it, make a part of it anew, or go on where it ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.tasks.editing import Editor


@dataclass(frozen=True)
class Change:
    """One of the three, for one recording; verb as in `Editor`."""

    verb: str
    path: Path
    strength: float = 0.5
    start: float = 0.0
    stop: float = 0.0
    seconds: float = 0.0
    overlap: float | None = None

    @classmethod
    def of(
        cls,
        init: Path | None,
        strength: float,
        inpaint: Path | None,
        start: float | None,
        stop: float | None,
        go_on: Path | None,
        seconds: float | None,
        overlap: float | None,
    ) -> "Change | None":
        """What the options ask for, None for none. Raises InputError for options that contradict one another."""
        from fromnoise.types import InputError

        given = [name for name, path in (("--init", init), ("--inpaint", inpaint), ("--continue", go_on)) if path]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} exclude each other; choose one")
        if (start is not None or stop is not None) and inpaint is None:
            raise InputError("--from and --to say what --inpaint makes anew; add --inpaint SOUND")
        if overlap is not None and go_on is None:
            raise InputError("--overlap is for --continue; add --continue SOUND")
        if seconds is not None and (init or inpaint):
            raise InputError(f"{given[0]} keeps the length of the recording; leave out --seconds")
        if init is not None:
            return cls("vary", init, strength=strength)
        if inpaint is not None:
            if start is None or stop is None:
                raise InputError("--inpaint needs --from and --to, the seconds between which it makes the sound anew")
            return cls("inpaint", inpaint, start=start, stop=stop)
        if go_on is not None:
            if seconds is None:
                raise InputError("--continue needs --seconds, the length in all")
            return cls("extend", go_on, seconds=seconds, overlap=overlap)
        return None

    def made(self, editor: "Editor") -> "np.ndarray":
        """The changed recording, as often as the editor says; of several channels the mean."""
        from fromnoise.data.audio import read

        wave, rate = read(self.path)
        mono = wave.mean(axis=0, keepdims=True)
        if self.verb == "vary":
            return editor.vary(mono, rate, self.strength)
        if self.verb == "inpaint":
            return editor.inpaint(mono, rate, self.start, self.stop)
        return editor.extend(mono, rate, self.seconds, self.overlap)
