"""The demo model behind a server of this machine, and what it says alone."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.serve.loopback import Loopback, serving
from tests.serve.scheduled import Steps
from voxmlx import Checkpoint, Session, Transcript, demo, load
from voxmlx.audio.files import open_audio


@pytest.fixture(scope="session")
def demo_checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.fixture(scope="session")
def sample() -> np.ndarray:
    """The demo's sample, float32 at 16 kHz."""
    with open_audio(demo.SAMPLE) as audio:
        return np.concatenate(list(audio.pieces()))


def alone(checkpoint: Checkpoint, samples: np.ndarray) -> str:
    session = Session(checkpoint)
    return Transcript.from_events(session.push(samples) + session.finish()).text


@pytest.fixture(scope="session")
def start_text(demo_checkpoint: Checkpoint, sample: np.ndarray) -> str:
    """What a session says about the sample's first five seconds."""
    return alone(demo_checkpoint, sample[: 5 * 16_000])


@pytest.fixture(scope="session")
def sample_text(demo_checkpoint: Checkpoint, sample: np.ndarray) -> str:
    """What a session says about the sample, which is what was said in it."""
    text = alone(demo_checkpoint, sample)
    assert text.split() == (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()
    return text


@pytest.fixture
def steps(tiny_checkpoint: Checkpoint) -> Steps:
    tiny_checkpoint.model.open_state()  # as the start does
    return Steps(tiny_checkpoint)


@pytest.fixture(scope="session")
def server(demo_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(demo_checkpoint, max_sessions=16) as server:
        yield server
