"""`voxmlx live` with a microphone that plays the demo's sample, for tests of workers.

The first time that it is opened it plays two utterances, and then two others; after each
part there is silence. Standard error tells when the device opens and closes.

    python -m tests.live.fake_worker ARGUMENTS

With FIRST_PART_S in the environment it says nothing after so many seconds, not even
silence, until it is opened again.
"""

import os
import sys
import threading
import time

import numpy as np
import soundfile

from tests.live.fake_portaudio import FakePortAudio
from voxmlx import demo
from voxmlx.audio import microphone
from voxmlx.live.__main__ import main

RATE = 16_000
CUTS_S = (5.2, 9.4)
SPEED = 4.0
BLOCK = RATE // 100
N_FIRST = float(os.environ.get("FIRST_PART_S", "inf")) * RATE


def play(portaudio: FakePortAudio) -> None:
    """Record blocks on whatever stream is open, faster than they were spoken."""
    samples = soundfile.read(demo.SAMPLE, dtype="float32")[0]
    first, end = (int(cut_s * RATE) for cut_s in CUTS_S)
    parts = [samples[:first], samples[first:end]]
    silence = np.zeros(BLOCK, np.float32)
    n_played, was_open = 0, False
    while True:
        is_open = bool(portaudio.streams) and portaudio.streams[-1].is_open
        if is_open != was_open:
            was_open = is_open
            sys.stderr.write("opened\n" if is_open else "closed\n")
            sys.stderr.flush()
        is_held = len(portaudio.streams) == 1 and n_played >= N_FIRST
        if is_open and not is_held:
            if len(portaudio.streams) > 1 and len(parts) > 1:
                parts.pop(0)
                n_played = 0
            block = parts[0][n_played : n_played + BLOCK]
            n_played += BLOCK
            portaudio.streams[-1].record(block if len(block) == BLOCK else silence)
        is_silent = n_played >= len(parts[0])
        time.sleep(BLOCK / RATE / (1 if is_silent else SPEED))


if __name__ == "__main__":
    # No device is lost here, however long this machine stands still.
    microphone._GONE_AFTER_S = 3600.0
    fake = FakePortAudio(Mic=float(RATE))
    fake.n_inputs = 1
    threading.Thread(target=play, args=[fake], daemon=True).start()
    status = main(["--demo", *sys.argv[1:]], portaudio=fake)
    if not any(stream.is_open for stream in fake.streams):
        sys.stderr.write("nothing is open\n")
    sys.exit(status)
