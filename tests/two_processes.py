"""`fromnoise train` on two processes, with the environment that torchrun gives its own; both forked from a process that
has imported everything, so that a run starts in a second."""

import multiprocessing as mp
import os
import socket
import sys
import time
from pathlib import Path

CONTEXT = mp.get_context("forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn")
CONTEXT.set_forkserver_preload(["fromnoise.cli.train", "fromnoise.training.run", "fromnoise.recipes.compose"])


class Run:
    """Two processes that train; what they print goes to `log`."""

    def __init__(self, log: Path, arguments: list[str]) -> None:
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log.write_text("")
        self.processes = [CONTEXT.Process(target=_train, args=(rank, port, str(log), arguments)) for rank in range(2)]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = 600) -> str:
        """The output of a run that must end well."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.1, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        assert codes == [0, 0], f"{codes}: {self.log.read_text()[-4000:]}"
        return self.log.read_text()

    def kill_after(self, line: str, seconds: float = 600) -> None:
        """Kill both when a line is there that begins so."""
        end = time.monotonic() + seconds
        while f"\n{line}" not in self.log.read_text():
            alive = all(process.is_alive() for process in self.processes)
            assert alive and time.monotonic() < end, self.log.read_text()[-4000:]
            time.sleep(0.002)
        self.kill()

    def kill(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _train(rank: int, port: int, log: str, arguments: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": "0", "OMP_NUM_THREADS": "1"}
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    from fromnoise.cli import main

    sys.exit(main(["train", *arguments]))
