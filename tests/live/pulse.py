"""A private PulseAudio server for tests, with virtual microphones."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["pulse_server"]


@contextmanager
def pulse_server(
    directory: Path, sinks: Sequence[str], latency_ms: int = 50
) -> Iterator[dict[str, str]]:
    """A server with null sinks; the environment that talks to it.

    What is played into a sink is heard on its monitor. PortAudio lists the monitor under
    the sink's name; the first one is the default. Skips the test where there is no
    PulseAudio or no PortAudio.
    """
    if any(shutil.which(name) is None for name in ("pulseaudio", "paplay", "pactl")):
        pytest.skip("no PulseAudio: apt-get install pulseaudio pulseaudio-utils")
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("no PortAudio: apt-get install libportaudio2")
    # PortAudio reaches PulseAudio through ALSA's plug-in (Debian: libasound2-plugins).
    devices = [f'pcm.{s} {{ type pulse device "{s}.monitor" }}\n' for s in sinks]
    rules = "pcm.!default { type pulse }\n"
    (directory / ".asoundrc").write_text(rules + "".join(devices[1:] and devices))
    socket = directory / "socket"
    environment = os.environ | {
        "HOME": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_SOURCE": f"{sinks[0]}.monitor",
        "PULSE_SINK": sinks[0],
        "PULSE_LATENCY_MSEC": str(latency_ms),
    }
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
            # A busy machine must not make it end itself.
            *("--no-cpu-limit=yes", "--realtime=no", "--high-priority=no"),
            *("--disable-shm=yes", "--use-pid-file=no", "--log-target=stderr"),
            *(
                "-L",
                f"module-native-protocol-unix socket={socket} auth-anonymous=1 auth-cookie-enabled=0",
            ),
        ],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 60
        while not socket.exists():
            assert server.poll() is None, "pulseaudio did not start"
            assert time.monotonic() < limit
            time.sleep(0.05)
        for sink in sinks:
            subprocess.run(
                [
                    *("pactl", "load-module", "module-null-sink"),
                    *(f"sink_name={sink}", "rate=16000", "channels=1"),
                ],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=60,
            )
        yield environment
    finally:
        server.terminate()
        server.wait()
