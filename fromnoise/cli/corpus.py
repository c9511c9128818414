"""Whole corpora by several processes, in parts, with a manifest: what `enhance`, `separate` and `vocode` share.

`--jobs`, `--shard`, `--engine`, `--batch-size` or tar shards as input make a run one over a corpus (`fromnoise.batch`);
without them a command works through its files one by one, and keeps no manifest.
"""

import hashlib
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.cli import common, work
from fromnoise.cli.together import Begin, Joint, do_jobs
from fromnoise.cli.work import FileWork, Planned

if TYPE_CHECKING:
    from fromnoise.batch import Item, Outcome, Task
    from fromnoise.batch.items import Batch
    from fromnoise.cli.jobs import Job, Plan

LISTED = 20  # failures that are named at the end; the manifest has all


@dataclass(frozen=True)
class Asked:
    """What was asked for: inputs and output, and how a corpus is to be worked through."""

    inputs: Sequence[str]
    output: Path | None
    device: str
    skip_existing: bool
    jobs: int | None
    shard: str | None
    engine: str | None
    address: str | None
    retries: int
    batch_size: int = 1

    @property
    def tars(self) -> bool:
        """Whether the inputs are tar shards. Raises InputError for shards beside other files."""
        from fromnoise.types import InputError

        tars = [text.endswith(".tar") for text in self.inputs]
        if any(tars) and not all(tars):
            raise InputError("expected tar shards or other files, got both; do one after the other")
        return any(tars)

    @property
    def corpus(self) -> bool:
        """Whether this is a run over a corpus."""
        given = any(one is not None for one in (self.jobs, self.shard, self.engine, self.address))
        return self.tars or given or self.batch_size > 1

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of --shard. Raises InputError for one that is no part."""
        from fromnoise.types import InputError

        if self.shard is None:
            return 1, 1
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        i, n = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= i <= n:
            raise InputError(f"--shard takes I/N with I from 1 to N, such as 1/10 to 10/10; got {self.shard!r}")
        return i, n

    @property
    def devices(self) -> list[str]:
        """The devices of `--device a,b`. Raises InputError for several where one process works."""
        from fromnoise.types import InputError

        names = common.comma_separated(self.device) or [self.device]
        if len(names) > 1 and (not self.corpus or self.engine == "ray"):
            raise InputError(f"several devices work side by side with --jobs N only, got --device {self.device}")
        return names

    def plan(self, planned: Planned, plot: bool) -> "Plan":
        """The jobs. Raises InputError for options that contradict one another or the inputs."""
        if self.corpus:
            self.check(plot)
        if not self.tars:
            return planned(self.inputs, self.output)
        from fromnoise.cli.tars import plan_tars

        return plan_tars(self.inputs, self.output)

    def check(self, plot: bool = False) -> None:
        """Raises InputError for options that contradict one another."""
        from fromnoise.types import InputError

        _ = self.part, self.devices
        if self.engine not in (None, "local", "ray"):
            raise InputError(f"--engine must be local or ray, got {self.engine!r}")
        if self.address is not None and self.engine != "ray":
            raise InputError("--address is that of a Ray cluster; say --engine ray beside it, or leave it out")
        if not self.tars and (self.output is None or (self.output.suffix and not self.output.is_dir())):
            raise InputError(
                "--jobs, --shard, --engine and --batch-size keep a manifest in the output folder: name one by -o, "
                f"got {self.output or 'none'}"
            )
        if self.tars and plot:
            raise InputError("--plot writes pictures beside files, and a tar shard has no place for them; leave it out")
        if self.tars and self.batch_size > 1:
            raise InputError("--batch-size joins files, and the sounds of a tar shard are done in turn; leave it out")
        if self.engine == "ray":
            import ray  # noqa: F401 (absent: an error with the command that adds it)

    def load(self, name: str, task: str, checkpoint: str) -> Any:
        """The model; where workers load their own, it is to check the request by, on the CPU, out of their way."""
        if self.corpus and self.address is None:  # a cluster's devices are not those of this machine
            for device in self.devices:
                common.choose_device(device)
        return work.load(name, task, "cpu" if self.corpus else self.devices[0], checkpoint)

    def loader(self, name: str, task: str, checkpoint: str) -> Callable[[str], Any]:
        """How a worker, which may stand in another folder, loads the model on a device."""
        return partial(work.load, anywhere(name), task, checkpoint=checkpoint)

    def on_members(self, file_work: FileWork, planned: Planned, reads: Sequence[str]) -> FileWork:
        """The work on one of the inputs, from that on one file: of tar shards, on every member of such a suffix."""
        if not self.tars:
            return file_work
        from fromnoise.cli.tars import tar_work

        return tar_work(file_work, planned, reads)

    def run(
        self,
        todo: "Plan",
        ready: Any,
        load: Callable[[str], Any],
        file_work: FileWork,
        facts: Mapping[str, Any],
        voice: common.Voice,
        as_json: bool,
        joint: Joint,
    ) -> None:
        """Do the jobs of this part that are not done, and end with exit code 1 where something failed.

        ready: the model, already loaded; load: how a worker loads its own on a device; facts: what decides the result
        beside model and inputs. joint: the same work on several files at once.
        """
        from fromnoise.batch import Item, Task, buckets

        for name, reason in todo.empty:
            voice.complain(f"Error: {name}: {reason}")
        items = [Item.of(job.source, job.targets) for job in todo.jobs]
        settings = {"model": ready.name, "weights": fingerprint(ready), **facts}
        task = Task(load, partial(do_item, file_work), partial(do_items, joint.begin, self.batch_size))
        batched = partial(buckets, length=lambda item: joint.key(Path(item.source)), size=self.batch_size)
        outcome, records, manifest = self.go_through(
            items, task, settings, voice, as_json, len(todo.empty), batched if self.batch_size > 1 else None
        )
        empty = [{"input": name, "error": reason} for name, reason in todo.empty]
        told = {"device": self.device, "manifest": str(manifest), "done_before": outcome.done_before}
        work.finish(empty + records, settings | told | {"seconds": outcome.seconds}, voice, as_json)

    def go_through(
        self,
        items: "Sequence[Item]",
        task: "Task",
        settings: Mapping[str, Any],
        voice: common.Voice,
        keep: bool,
        empty: int = 0,
        batched: "Callable[[Sequence[Item]], Sequence[Batch]] | None" = None,
    ) -> "tuple[Outcome, list[work.Record], Path]":
        """Do those items of this part that are not done; how it went, the records of failures, and the manifest.

        settings: all that decides what is written. keep: the records of all that was done instead of those of failures.
        empty: how many inputs stand for no file. batched: which items are done together, None for each by itself.
        """
        import fromnoise
        from fromnoise.batch import Manifest
        from fromnoise.batch import run as run_corpus
        from fromnoise.batch.corpus import alone

        i, n = self.part
        mine, others = items[i - 1 :: n], [item for k, item in enumerate(items) if k % n != i - 1]
        if self.skip_existing:
            mine = [item for item in mine if not all(Path(name).exists() for name in item.outputs)]
        with stopped_by_signals(), Manifest(self._folder(), settings, fromnoise.__version__, (i, n)) as manifest:
            _announce(manifest.other_settings(mine), voice)
            with voice.progress(f"{len(mine)} files") as progress:
                teller = _Teller(voice, progress, [] if keep else None)
                try:
                    outcome = run_corpus(
                        mine, others, partial(self._hands, task), manifest, self.retries, teller, batched or alone
                    )
                except (KeyboardInterrupt, SystemExit):
                    voice.complain(f"ended; what is done stands in {manifest.path}, and the same command goes on")
                    raise
        _summarise(outcome, empty, teller.sound, manifest.path, voice)
        return outcome, outcome.failed if teller.records is None else teller.records, manifest.path

    def _folder(self) -> Path:
        """Where the manifest lies."""
        assert self.output is not None
        return self.output.parent if self.tars and self.output.suffix == ".tar" else self.output

    def _hands(self, task: Any) -> Any:
        """The workers."""
        from fromnoise.batch.items import threads_for

        if self.engine == "ray":
            from fromnoise.batch.cluster import Cluster

            return Cluster(task, self.jobs or (1 if self.address is None else None), self.device, self.address)
        from fromnoise.batch.pool import Pool

        jobs = self.jobs or len(self.devices)
        return Pool(task, jobs, self.devices, threads_for(jobs))


def anywhere(name: str) -> str:
    """The name as a process in another folder has to say it: in full where it is that of a file or folder."""
    place = Path(name).expanduser()
    return str(place.absolute()) if place.exists() else name


def decisive(command: str, settings: Any, **more: Any) -> dict[str, Any]:
    """What decides the content of the results: settings and more, without those that choose or show."""
    kept = {name: value for name, value in vars(settings).items() if name not in ("plot", "skip_existing")}
    return {"command": command, "settings": kept | more}


def do_item(file_work: FileWork, tool: Any, item: "Item") -> work.Record:
    """What a worker does with an item: the command's work on one file."""
    return work.attempt(_job(item), partial(file_work, tool), lambda *_: None)


def do_items(begin: Begin, at_once: int, tool: Any, items: "Batch") -> list[work.Record]:
    """What a worker does with several items of one length."""
    return do_jobs(begin, at_once, tool, [_job(item) for item in items])


def _job(item: "Item") -> "Job":
    from fromnoise.cli.jobs import Job

    target, *further = (Path(name) for name in item.outputs)
    return Job(Path(item.source), target, tuple(further))


def fingerprint(ready: Any) -> str:
    """SHA-256 of a model's configuration and weights, wherever they came from."""
    import torch

    found = hashlib.sha256(json.dumps(ready.card.get("config"), sort_keys=True, default=str).encode())
    for name, tensor in sorted(ready.model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """A request to end (SIGTERM, as of Slurm or `kill`) as an exit by which everything is cleaned up."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _announce(other: tuple[int, list[str]], voice: common.Voice) -> None:
    count, names = other
    if count:
        voice.say(f"{count} files were made with another {' and '.join(names) or 'run'}; they are made again")


class _Teller:
    """Says what has to be said of each record, adds up the seconds of sound, and keeps the records where asked to."""

    def __init__(self, voice: common.Voice, progress: work.Progress, records: list[work.Record] | None) -> None:
        self.voice, self.progress, self.records, self.sound = voice, progress, records, 0.0

    def __call__(self, record: work.Record, done: int, total: int) -> None:
        for warning in record.get("warnings", ()):
            self.voice.complain(f"Warning: {warning}")
        if record["error"]:
            self.voice.complain(f"Error: {record['error']}")
        else:
            self.sound += record.get("seconds", 0.0)
        if self.records is not None:
            self.records.append(record)
        self.progress(done, total)


def _summarise(outcome: "Outcome", empty: int, sound: float, manifest: Path, voice: common.Voice) -> None:
    failed = [record["input"] for record in outcome.failed]
    counts = f"{outcome.made} files made, {outcome.done_before} done before, {len(failed) + empty} failed"
    if sound:
        counts += f"; {sound:.1f} s of sound in {outcome.seconds:.1f} s, real-time factor {outcome.seconds / sound:.3f}"
    voice.say(f"{counts}; {manifest}")
    if failed:
        more = f" and {len(failed) - LISTED} more" if len(failed) > LISTED else ""
        voice.complain(f"{len(failed)} failed, and the next run tries them again: {', '.join(failed[:LISTED])}{more}")
