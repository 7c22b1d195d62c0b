"""Fixtures every test may use: a tiny checkpoint, on disk and loaded."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tiny import TinyModel
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.kernels import kernel_switches
from voxmlx.kernels.switches import NUMPY

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let the commands that tests start be ended by SIGINT and SIGHUP.

    What a shell starts in the background ignores the one, what `nohup` starts the other,
    and so does all that they start.
    """
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _in_mlx() -> Iterator[None]:
    """Compute with MLX's operations, as on a Mac, unless a test is about NumPy's.

    Commands that tests start choose for themselves.
    """
    with kernel_switches().without(NUMPY):
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Mistral's layout; copy it before changing anything."""
    return TinyModel().write(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_checkpoint_dir: Path) -> Checkpoint:
    """The same checkpoint, loaded in float32."""
    return load(tiny_checkpoint_dir, "float32")
