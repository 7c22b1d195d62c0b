"""One implementation in a process of its own, and where its interpreter comes from."""

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peer_models import clean_environment

__all__ = ["ENVIRONMENTS", "PEERS", "PeerSettings", "Worker", "environments"]

ENVIRONMENTS = Path.home() / ".cache" / "voxmlx" / "peers"

# Names on PyPI, which are also folders here, and what each needs besides.
PEERS: dict[str, list[str]] = {
    "mlx-audio": ["mlx[cpu]"] if sys.platform == "linux" else [],
    "voxmlx": ["mlx[cpu]"] if sys.platform == "linux" else [],
    "transcribe-cpp": ["transcribe-cpp-native", "numpy"],
}


class Worker:
    """A process that loads a model and answers requests in JSON."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        limit_s: float = 120,
    ) -> None:
        """`limit_s` is how long a task may take; then the process is stopped."""
        self._limit_s = limit_s
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            text=True,
        )
        answer = self._answer(None)
        self.ready_s = time.perf_counter() - start
        """From the start of the process, with all imports, to the loaded model."""
        self.load_s: float | None = answer.get("load_s")
        self.versions: dict[str, str] = answer.get("versions", {})

    def ask(self, task: str, **options: Any) -> dict[str, Any]:
        """An answer, or {"error": ...}."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"task": task, **options}), file=self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        return self._answer(self._limit_s)

    def _answer(self, limit_s: float | None) -> dict[str, Any]:
        assert self._process.stdout is not None
        # One line answers one request, so none waits in Python's buffer.
        answered, _, _ = select.select([self._process.stdout], [], [], limit_s)
        if not answered:
            self._process.kill()
            return {"error": f"stopped after {limit_s:g} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process has ended"}

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PeerSettings:
    """Interpreters of the peers, threads, BLAS and patience, for every process."""

    def __init__(
        self,
        pythons: Mapping[str, Path],
        n_threads: int,
        blas: str | None,
        limit_s: float,
    ) -> None:
        self.pythons = pythons
        self.n_threads = n_threads
        self.blas = blas
        self.limit_s = limit_s

    def start(self, who: str, path: Path) -> Worker:
        """Return a process of "ours" or of a peer that has loaded `path`."""
        here = Path(__file__).parent
        environment = clean_environment(self.n_threads, self.blas)
        if who == "ours":
            environment["PYTHONPATH"] = str(here.parent)
            command = [sys.executable, "-m", "benchmarks.own_worker", path]
            return Worker(command, environment, self.limit_s)
        command = [self.pythons[who], here / "peer_worker.py", who, path]
        return Worker(command, environment, self.limit_s)


def environments(folder: Path, peers: Sequence[str]) -> dict[str, Path]:
    """Return the interpreter of each peer, installed if it is not there yet."""
    pythons: dict[str, Path] = {}
    for peer in peers:
        python = folder / peer / "bin" / "python"
        if not python.exists():
            print(f"installing {peer} into {folder / peer}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
            packages = [peer, *PEERS[peer]]
            command = [python, "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True)
        pythons[peer] = python
    return pythons
