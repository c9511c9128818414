"""Recordings of any length through any task, in pieces, with memory that depends on the piece, not on the recording.

Piece k covers [k step, k step + segment), step = segment - 2 context - overlap. Its first and last `context` samples
are only there to be looked at and are discarded; two neighbours then share `overlap` samples, which go over from one to
the other with weights that add up to 1 (for equal pieces: to the last bit):

    piece k     |ccccc|kkkkkkkkkkkkkkkkkkk|ooo|ccccc|
    piece k+1                       |ccccc|ooo|kkkkkkkkkkkkkkkkkkk|ooo|ccccc|

    out = a + v (b - a),   v = (i + 1/2) / overlap  or  (1 - cos(pi (i + 1/2) / overlap)) / 2

A cross-fade alone blends exactly the samples near a cut, which are the wrong ones: the context is what makes the seam
right, if it covers what the model sees (its front end's `reach` and its network's). Every piece begins at a multiple of
`align` samples, the front end's hop, so a process that draws its noise by absolute position (`PositionNoise` with
`offset = start // hop`) draws the same noise as in one go. Samples are read, and written, as soon as they can be.

The loop over the pieces is a generator that asks for each piece and is sent the answer, so that whoever runs several
of them can answer several at once; `answered` runs one.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from fromnoise.frontends.resample import Resampler, resampled_length
from fromnoise.types import InputError

Wave = Float32[np.ndarray, "c n"]
ProcessChunk = Callable[[np.ndarray, int], np.ndarray]
"""(wave `c n` float32, its first sample's position in the recording) -> `k n` float32, any k, the same n."""
Request = tuple[ProcessChunk, np.ndarray, int]
"""A piece of a recording to be processed: by what, the wave, its first sample's position."""
Result = TypeVar("Result")
Asking = Generator[Request, np.ndarray, Result]
Match = Callable[[np.ndarray, np.ndarray], Sequence[int]]
"""(earlier, later): `k m`, two results for the same samples -> for each row of earlier its row in later."""


@dataclass(frozen=True)
class Chunking:
    """How a recording is cut; all in samples at the model's rate.

    segment: the most that one call gets. context: discarded at both sides. overlap: cross-faded. align: starts are
    multiples of it.
    """

    segment: int
    context: int = 0
    overlap: int = 0
    align: int = 1
    fade: str = "cosine"

    def __post_init__(self) -> None:
        if min(self.context, self.overlap) < 0 or self.align < 1:
            raise ValueError(f"expected context and overlap >= 0 and align >= 1, got {self}")
        if self.fade not in ("cosine", "linear"):
            raise ValueError(f"fade must be cosine or linear, got {self.fade!r}")
        least_step = -(-max(self.overlap, 1) // self.align) * self.align  # no sample may lie in two overlaps
        if self.step < least_step:
            least = 2 * self.context + self.overlap + least_step
            raise ValueError(
                f"segment must be at least 2 context + 2 overlap, aligned: {least} samples, got {self.segment}; "
                "make the segment longer, or the context or overlap shorter"
            )

    @property
    def step(self) -> int:
        """From one piece's start to the next."""
        return (self.segment - 2 * self.context - self.overlap) // self.align * self.align

    def count(self, total: int) -> int:
        """Calls for a recording of `total` samples."""
        return 1 + max(0, math.ceil((total - self.segment) / self.step))

    def join(self, k: int) -> int:
        """Where piece k begins to be heard."""
        return k * self.step + self.context if k else 0

    def weights(self) -> Float32[np.ndarray, " overlap"]:
        """The later piece's share of each sample of the overlap, rising."""
        rising = (np.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        return (rising if self.fade == "linear" else (1 - np.cos(np.pi * rising)) / 2).astype(np.float32)


def run_chunked(
    process_chunk: ProcessChunk,
    read_block: Callable[[int], np.ndarray],
    write_block: Callable[[np.ndarray], None],
    total: int,
    segment: int,
    context: int = 0,
    overlap: int = 0,
    align: int = 1,
    fade: str = "cosine",
    match: Match | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run `process_chunk` over `total` samples that `read_block(count)` gives in order, `c count` at a time.

    write_block receives the result in order, each sample once. segment, context, overlap, align and fade: see
    `Chunking`. match: re-orders the rows of each result to follow those before it (`following.Follower`).
    progress: called with (pieces done, pieces in all).
    """
    chunking = Chunking(segment, context, overlap, align, fade)
    answered(pieces(process_chunk, read_block, write_block, total, chunking, match, progress))


def pieces(
    process_chunk: ProcessChunk,
    read_block: Callable[[int], np.ndarray],
    write_block: Callable[[np.ndarray], None],
    total: int,
    chunking: Chunking,
    match: Match | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Asking[None]:
    """The loop of `run_chunked`, see there; it asks for every piece."""
    if total < 1:
        raise InputError("expected at least one sample, got none")
    count, rising = chunking.count(total), chunking.weights()
    shared = chunking.segment - chunking.step  # samples that two neighbours have in common
    wave: np.ndarray | None = None
    tail: np.ndarray | None = None  # the last `shared` samples of the result before
    for k in range(count):
        start, stop = k * chunking.step, min(k * chunking.step + chunking.segment, total)
        wave = _advance(wave, read_block, 0 if wave is None else chunking.step, stop - start)
        # A copy, because torch.from_numpy and in-place scaling would reach the samples that the next piece still needs.
        result = _checked((yield process_chunk, wave.copy(), start), wave)
        if tail is not None:
            result = result if match is None else result[_order(match, tail, result[:, :shared])]
        last = k == count - 1
        kept = result[:, 0 if tail is None else chunking.context : None if last else chunking.step + chunking.context]
        if tail is not None:
            earlier = tail[:, chunking.context :][:, : chunking.overlap]
            later = kept[:, : chunking.overlap]
            kept = np.concatenate([earlier + rising * (later - earlier), kept[:, chunking.overlap :]], axis=1)
        write_block(kept)
        tail = None if last else result[:, chunking.step :].copy()
        if progress is not None:
            progress(k + 1, count)


def _advance(wave: np.ndarray | None, read_block: Callable[[int], np.ndarray], drop: int, length: int) -> np.ndarray:
    """The input window moved on by `drop` samples and filled up to `length`."""
    rest = 0 if wave is None else wave.shape[1] - drop
    fresh = read_block(length - rest)
    if fresh.shape[1] != length - rest:
        raise InputError(f"the recording ended early: expected {length - rest} more samples, got {fresh.shape[1]}")
    return fresh if wave is None else np.concatenate([wave[:, drop:], fresh], axis=1)


def advanced(asking: Asking[Result], answer: np.ndarray | None = None) -> tuple[Request | None, Result | None]:
    """What it asks for next once it is told the answer to what it asked last; or None, and what it returns."""
    try:
        return (next(asking) if answer is None else asking.send(answer)), None
    except StopIteration as end:
        return None, end.value


def answered(asking: Asking[Result]) -> Result:
    """What it returns once all that it asks for has been processed, one piece after the other."""
    with closing(asking):
        request, result = advanced(asking)
        while request is not None:
            process, wave, start = request
            request, result = advanced(asking, process(wave, start))
    return result  # pyright: ignore[reportReturnType] (no request: this is what it returned)


def _checked(answer: np.ndarray, wave: np.ndarray) -> Wave:
    result = np.asarray(answer, dtype=np.float32)
    if result.ndim != 2 or result.shape[1] != wave.shape[1]:
        raise ValueError(f"expected a result of {wave.shape[1]} samples like the chunk, got shape {result.shape}")
    return result


def _order(match: Match, earlier: np.ndarray, later: np.ndarray) -> list[int]:
    order = list(match(earlier, later))
    if sorted(order) != list(range(len(later))):
        raise ValueError(f"match must return each of {len(later)} rows once, got {order}")
    return order


@runtime_checkable
class Reader(Protocol):
    """An opened recording, e.g. `fromnoise.data.audio.AudioReader`."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...
    def blocks(self, size: int = ...) -> Iterator[np.ndarray]: ...


@runtime_checkable
class Writer(Protocol):
    """Where a result goes, e.g. `fromnoise.data.audio.AudioWriter`."""

    sample_rate: int

    def write(self, block: np.ndarray) -> None: ...


def stream(
    reader: Reader,
    writers: Writer | Sequence[Writer],
    process_chunk: ProcessChunk,
    rate: int,
    segment: int,
    context: int = 0,
    overlap: int = 0,
    align: int = 1,
    fade: str = "cosine",
    match: Match | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """A recording from reader to writer through a process that works at `rate` Hz, in memory that does not grow.

    The result has the recording's length when a writer has its rate, its duration otherwise; levels are left alone.
    With several writers the rows of the result are dealt out to them evenly, in order: one writer per source.
    segment, context, overlap and align count samples at `rate`; see `run_chunked` for these and the rest.
    """
    chunking = Chunking(segment, context, overlap, align, fade)
    answered(streamed(reader, writers, process_chunk, rate, chunking, match, progress))


def streamed(
    reader: Reader,
    writers: Writer | Sequence[Writer],
    process_chunk: ProcessChunk,
    rate: int,
    chunking: Chunking,
    match: Match | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Asking[None]:
    """The loop of `stream`, see there; it asks for every piece."""
    outputs = [writers] if not isinstance(writers, Sequence) else list(writers)
    total = resampled_length(reader.frames, reader.sample_rate, rate)
    sinks = [_Sink(writer, rate, reader) for writer in outputs]

    def deal(block: np.ndarray) -> None:
        if len(block) % len(sinks):
            raise ValueError(f"{len(block)} rows of a result cannot be dealt out evenly to {len(sinks)} writers")
        for sink, part in zip(sinks, np.split(block, len(sinks)), strict=True):
            sink.write(part)

    source = _Source(reader, rate, total)
    yield from pieces(process_chunk, source.read, deal, total, chunking, match, progress)
    for sink in sinks:
        sink.finish()


class Averaged:
    """A recording's channels averaged to one, as a `Reader`."""

    channels = 1

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def sample_rate(self) -> int:
        return self._reader.sample_rate

    @property
    def frames(self) -> int:
        return self._reader.frames

    def blocks(self, size: int = 1 << 14) -> Iterator[np.ndarray]:
        return (block.mean(axis=0, keepdims=True) for block in self._reader.blocks(size))


@dataclass(frozen=True)
class Level:
    """Peak and root mean square of each channel of a whole recording."""

    peak: Float[np.ndarray, " c"]
    rms: Float[np.ndarray, " c"]

    @classmethod
    def of(cls, data: Float[np.ndarray, "c n"]) -> "Level":
        """Those of a recording that is in memory."""
        return cls(np.abs(data).max(axis=1), np.sqrt(np.square(data, dtype=np.float64).mean(axis=1)))


def measure(reader: Reader, rate: int) -> Level:
    """The levels of a recording at `rate` Hz, read once: what a process needs to scale each piece like the whole."""
    total = resampled_length(reader.frames, reader.sample_rate, rate)
    source = _Source(reader, rate, total)
    peak, energy = np.zeros(reader.channels), np.zeros(reader.channels)
    for start in range(0, total, _BLOCK):
        block = source.read(min(_BLOCK, total - start))
        peak = np.maximum(peak, np.abs(block).max(axis=1))
        energy += np.square(block, dtype=np.float64).sum(axis=1)
    return Level(peak, np.sqrt(energy / total))


_BLOCK = 1 << 14


class _Source:
    """The reader's samples at the model's rate, `total` of them, in blocks of any size."""

    def __init__(self, reader: Reader, rate: int, total: int) -> None:
        self._pieces = self._resampled(reader, rate, total)
        self._left = np.zeros((reader.channels, 0), np.float32)

    @staticmethod
    def _resampled(reader: Reader, rate: int, total: int) -> Iterator[np.ndarray]:
        resampler = Resampler(reader.sample_rate, rate, reader.channels, total)
        for block in reader.blocks(_BLOCK):
            yield resampler.push(block)
        yield resampler.finish()

    def read(self, count: int) -> np.ndarray:
        pieces, have = [self._left], self._left.shape[1]
        while have < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            pieces.append(piece)
            have += piece.shape[1]
        joined = np.concatenate(pieces, axis=1)
        self._left = joined[:, count:].copy()
        return joined[:, :count]


class _Sink:
    """One writer behind the way back to its own rate."""

    def __init__(self, writer: Writer, rate: int, reader: Reader) -> None:
        same = writer.sample_rate == reader.sample_rate
        self._length = (
            reader.frames if same else resampled_length(reader.frames, reader.sample_rate, writer.sample_rate)
        )
        self._writer, self._rate = writer, rate
        self._resampler: Resampler | None = None

    def write(self, block: np.ndarray) -> None:
        if self._resampler is None:
            self._resampler = Resampler(self._rate, self._writer.sample_rate, len(block), self._length)
        for start in range(0, block.shape[1], _BLOCK):
            self._writer.write(self._resampler.push(block[:, start : start + _BLOCK]))

    def finish(self) -> None:
        assert self._resampler is not None
        self._writer.write(self._resampler.finish())
