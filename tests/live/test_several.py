"""Several sources at once: one transcript in order of time, each word with its label."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.live.fake_portaudio import FakeError, FakePortAudio, FakeStream
from voxmlx import Checkpoint, demo, load
from voxmlx.audio.device_group import DeviceGroup, LookElsewhere
from voxmlx.audio.file_source import FileSource
from voxmlx.audio.files import open_audio
from voxmlx.audio.microphone import Microphone
from voxmlx.errors import DeviceError
from voxmlx.file_transcript import transcribe_file
from voxmlx.live.__main__ import main
from voxmlx.live.sources import (
    DeviceSource,
    channel_sources,
    device_labels,
    find_devices,
)
from voxmlx.live.split_files import SplitRecording
from voxmlx.transcribe import main as transcribe

SAID = ["seven oh seven zero nine two", "what time is it turn on the lights"]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers at once."""
    sound = soundfile.read(demo.SAMPLE, dtype="int16")[0]
    sides = np.zeros((round(4.3 * 16_000), 2), np.int16)
    for side, (begin_s, end_s) in enumerate([(0, 2.8), (4.3, 8.6)]):
        voice = sound[int(begin_s * 16_000) : int(end_s * 16_000)]
        sides[: len(voice), side] = voice
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, sides, 16_000)
    return path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    for place in ("voxmlx.transcribe", "voxmlx.live.local_sessions"):
        monkeypatch.setattr(f"{place}.load_model", lambda _: checkpoint)

    def command(main: Callable[..., int], *arguments: Any, **options: Any):
        status = main(["--demo", *map(str, arguments)], **options)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def test_a_stereo_file_gives_what_transcribe_gives_and_a_recording_of_each_channel(
    call: Path, tmp_path: Path, run: Command
) -> None:
    names = ["me", "them"]
    labels = [part for name in names for part in ("--label", name)]
    split = ["--channel", "split", *labels]
    files = {name: tmp_path / f"live.{name}" for name in ("txt", "srt", "vtt", "jsonl")}
    outputs = [part for path in files.values() for part in ("--output", path)]
    outputs += ["--record", tmp_path / "live.wav"]
    status, out, err = run(main, "--input", call, *split, *outputs, "--stats")
    assert status == 0
    formats = [part for name in ("txt", "srt", "vtt") for part in ("--format", name)]
    run(transcribe, *split, *formats, "--output-dir", tmp_path, call)
    for name in ("txt", "srt", "vtt"):
        expected = (tmp_path / f"call.{name}").read_text()
        assert files[name].read_text() == expected
    assert sorted(out.splitlines()) == sorted(files["txt"].read_text().splitlines())
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert lines[0]["labels"] == names
    for label, text in zip(names, SAID, strict=True):
        own = [line for line in lines if line.get("label") == label]
        words = [line["text"] for line in own if line["type"] == "word"]
        deltas = [line["text"] for line in own if line["type"] == "text_delta"]
        assert " ".join(words) == text
        assert "".join(deltas).split() == text.split()
        assert own[-1]["type"] == "finished"
        assert f"voxmlx: {label}: heard 0:04; " in err
    stats = json.loads(err.splitlines()[-1])
    assert [one["label"] for one in stats["sources"]] == names
    heard, rate = soundfile.read(tmp_path / "live.wav", dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(heard, soundfile.read(call, dtype="int16")[0])


def test_a_dictionary_writes_the_words_of_each_channel_whoever_decides_of_echoes(
    call: Path, checkpoint: Checkpoint, tmp_path: Path, run: Command
) -> None:
    written = {"turn on": "start", "seven oh seven": "707"}
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{key} = {text}\n" for key, text in written.items()))
    split = ["--channel", "split", "--replace", path]
    transcript = transcribe_file(
        call, model=checkpoint, channel="split", replacements=written
    )
    shown = [
        sorted(run(main, "--input", call, *split)[1].splitlines()),
        sorted(run(transcribe, *split, call)[1].splitlines()),
        sorted(transcript.text.splitlines()),
    ]
    lines = [
        "channel 1: 707 zero nine two",
        "channel 2: start the lights",
        "channel 2: what time is it",
    ]
    assert shown == [lines] * 3


def test_a_recording_of_sources_that_come_unevenly_is_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sides = rng.integers(-32768, 32767, (2, 5000)).astype(np.int16)
    recording = SplitRecording(tmp_path / "a.wav", 2)
    ends = [0, 0]
    while min(ends) < 5000:
        side = int(rng.integers(2))
        end = min(5000, ends[side] + int(rng.integers(1, 700)))
        part = sides[side, ends[side] : end].astype(np.float32) / 32768
        recording.on_audio(side + 1, part)
        ends[side] = end
    recording.on_audio(2, np.full(10, 0.5, np.float32))  # the other ended before
    recording.close()
    heard, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(heard[:5000], sides.T)
    assert heard[5000:].tolist() == [[0, 16384]] * 10


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["MacBook Pro Microphone", "BlackHole 2ch"], [], ["me", "them"]),
        (["BlackHole 2ch", "USB"], [], ["them", "me"]),
        (["USB", "Headset"], [], ["USB", "Headset"]),
        (["USB", "USB"], [], ["USB", "USB 2"]),
        (["USB", "BlackHole 2ch", "Headset"], ["Ann"], ["Ann", "BlackHole 2ch", "Headset"]),
        (["USB", "Headset"], ["Headset"], ["Headset", "Headset 2"]),
        (["Mic", "BlackHole 2ch"], ["Ann", "Ben"], ["Ann", "Ben"]),
    ],
)  # fmt: skip
def test_labels_say_who_is_heard_where(
    names: list[str], labels: list[str], expected: list[str]
) -> None:
    assert device_labels(names, labels) == expected


def test_one_device_by_two_names_is_refused() -> None:
    portaudio = FakePortAudio(Inside=16_000.0, Outside=48_000.0)
    assert find_devices(portaudio, ["Ins", "2"]) == ["Inside", "Outside"]
    with pytest.raises(DeviceError, match=r"--device Ins and --device 1 are both Insi"):
        find_devices(portaudio, ["Ins", "1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "a", "--device", "b", "--input", "x.wav"], "--device and --input"),
        (["--device", "a", "--device", "a"], "names one device twice"),
        (["--device", "a", "--device", "b", "--server", "ws://x"],
         "--server is of one stream and does not go with several --device"),
        (["--device", "a", "--device", "b", "--resume", "x.wav"], "--resume is of one"),
        (["--device", "a", "--device", "b", *["--label", "A"] * 2], "the same --label"),
        (["--device", "a", "--device", "b", "--label", "A", "--label", "B", "--label", "C"],
         "--label is given 3 times for 2 devices"),
        (["--device", "a", "--label", "A"], "--label goes with several --device"),
        (["--keep-echo"], "--keep-echo goes with several --device"),
        (["--channel", "split"], "--channel split goes with --input FILE"),
        (["--device", "a", "--device", "b", "--channel", "split"], "goes with --input"),
        (["--input", "x.wav", "--channel", "split", "--server", "ws://x"],
         "--server is of one stream and does not go with --channel split"),
        ([part for n in range(17) for part in ("--device", str(n))], "at most 16"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_several_sources_is_refused_by_name(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--demo", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


class OneBusy(FakePortAudio):
    """Another program has the second device."""

    def InputStream(self, **options: Any) -> FakeStream:
        if options["device"] == 2:
            raise FakeError("Device unavailable [PaErrorCode -9985]")
        return super().InputStream(**options)


@pytest.mark.parametrize(
    ("portaudio", "said"),
    [
        (FakePortAudio(Mic=16_000.0), "--device BlackHole is no input device"),
        (OneBusy(Mic=16_000.0, BlackHole=48_000.0), "BlackHole cannot be opened"),
    ],
)
def test_a_device_that_cannot_be_opened_ends_the_command_before_a_file_is_made(
    portaudio: FakePortAudio, said: str, tmp_path: Path, run: Command
) -> None:
    files = ["--output", tmp_path / "a.srt", "--record", tmp_path / "a.wav"]
    devices = ["--device", "Mic", "--device", "BlackHole"]
    status, out, err = run(main, *devices, *files, portaudio=portaudio)
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []
    assert not any(stream.is_open for stream in portaudio.streams)


class FakeLook:
    """Another process that takes a while to look which devices there are."""

    def __init__(self, portaudio: FakePortAudio) -> None:
        self._portaudio = portaudio
        self._n_asked = 0
        self.n_asks = 50
        self.n_started = 0

    def start(self) -> None:
        self.n_started += 1
        self._n_asked = 0

    def names(self) -> Counter[str] | None:
        self._n_asked += 1
        if self._n_asked < self.n_asks:
            return None
        return Counter(name.partition("#")[0] for name in self._portaudio.plugged)

    def close(self) -> None: ...


class Table:
    """Devices that are open, a clock that stands still, and what was said."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *names: str, n_open: int = 2
    ) -> None:
        """`names` are those of devices 1, 2, ..., and the first `n_open` are open."""
        rates = dict.fromkeys(names or ("Mic", "BlackHole"), 16_000.0)
        self.portaudio = FakePortAudio(**rates)
        self.now = 100.0
        self.said: list[str] = []
        self.look = FakeLook(self.portaudio)
        monkeypatch.setattr("voxmlx.audio.microphone.time.sleep", lambda _: None)
        group = self.group = DeviceGroup(
            self.portaudio, self.look, clock=lambda: self.now
        )
        self.sources = [
            DeviceSource(
                Microphone(
                    number,
                    self.said.append,
                    is_alone=False,
                    portaudio=self.portaudio,
                    clock=lambda: self.now,
                ),
                group,
                self.now,
            )
            for number in range(1, 1 + n_open)
        ]
        self.n_heard = [0] * n_open
        self.n_sounding = [0] * n_open

    def wait(self, seconds: float) -> None:
        """Let the group alone see time pass."""
        self.look.n_asks = 1
        for _ in range(round(2 * seconds)):
            self.now += 0.5
            self.group.tend()

    def run(self, seconds: float) -> None:
        """Let all devices that are plugged in hear a tone."""
        names = list(self.portaudio.plugged)
        for _ in range(round(100 * seconds)):
            self.now += 0.01
            open_streams = [one for one in self.portaudio.streams if one.is_running]
            for stream in open_streams:
                if len(names) > stream.options["device"]:
                    stream.record(np.full(160, 0.1, np.float32))
            for side, source in enumerate(self.sources):
                for block in source.read(0):
                    self.n_heard[side] += len(block.samples)
                    sounding = np.count_nonzero(np.abs(block.samples) > 0.05)
                    self.n_sounding[side] += int(sounding)


def test_a_lost_device_comes_back_and_the_others_are_heard_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch)
    table.run(5)
    first = table.portaudio.streams[0]
    table.portaudio.unplug("BlackHole")
    table.run(20)
    assert table.said == ["BlackHole is gone; waiting for it"]
    assert table.look.n_started > 3
    assert first.is_open  # nobody was disturbed
    assert table.n_heard[1] == pytest.approx(25 * 16_000, abs=1000)
    table.portaudio.plugged["BlackHole"] = 16_000.0
    table.run(10)
    assert table.said[1:] == ["BlackHole is back"]
    assert not first.is_open
    assert table.n_sounding[0] == pytest.approx(35 * 16_000, abs=1000)
    assert 10 * 16_000 < table.n_sounding[1] < 15 * 16_000
    for n in table.n_heard:
        assert n == pytest.approx(35 * 16_000, abs=500)


def test_a_device_that_cannot_be_opened_disturbs_the_others_ever_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tries are 3, 6, 12, 24, 48, 60, 60, ... seconds apart, or up to 3 s more."""
    table = Table(monkeypatch)
    portaudio = table.portaudio
    portaudio.unplug("BlackHole")
    table.run(5)
    portaudio.plug("BlackHole", 16_000.0, 2)
    in_use = True

    def start(stream: FakeStream) -> None:
        if in_use and stream.options["device"] == 2:
            raise FakeError("Device unavailable [PaErrorCode -9985]")
        stream.is_running = True

    monkeypatch.setattr(FakeStream, "start", start)
    table.wait(100)
    assert 5 <= portaudio.n_starts <= 7
    before = portaudio.n_starts
    table.wait(300)
    assert 4 <= portaudio.n_starts - before <= 6
    in_use = False
    table.wait(63)
    assert table.said == ["BlackHole is gone; waiting for it", "BlackHole is back"]
    # Where it is lost again, tries are as many as at first.
    in_use = True
    portaudio.unplug("BlackHole")
    table.run(4)
    portaudio.plug("BlackHole", 16_000.0, 2)
    before = portaudio.n_starts
    table.wait(30)
    assert portaudio.n_starts - before >= 3


def test_another_device_of_the_name_is_no_reason_to_start_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch, "Mic", "USB#1", "USB#2")
    table.portaudio.unplug("USB#1")
    table.run(30)
    assert table.portaudio.n_starts == 1
    assert table.said == ["USB is gone; waiting for it"]
    table.portaudio.plug("USB#1", 16_000.0, 2)
    table.run(10)
    assert table.said[1:] == ["USB is back"]
    assert [
        one.options["device"] for one in table.portaudio.streams if one.is_open
    ] == [
        2,
        1,
    ]


def test_a_device_comes_back_though_another_of_its_name_has_gone_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch, "Mic", "USB#1", "USB#2")
    del table.portaudio.plugged["USB#2"]
    table.portaudio.unplug("USB#1")
    table.run(10)
    table.portaudio.plug("USB#1", 16_000.0, 2)
    table.run(10)
    assert table.said == ["USB is gone; waiting for it", "USB is back"]


def test_of_two_lost_devices_of_one_name_none_is_taken_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch, "USB#1", "USB#2")
    for name in ("USB#1", "USB#2"):
        table.portaudio.unplug(name)
    for stream in table.portaudio.streams:
        stream.is_running = False
    table.run(10)
    table.portaudio.plug("USB#2", 16_000.0, 1)
    table.run(10)
    assert table.said == ["USB is gone; waiting for it"] * 2
    table.portaudio.plug("USB#1", 16_000.0, 1)
    table.run(10)
    assert table.said[2:] == ["USB is back"] * 2
    running = [one for one in table.portaudio.streams if one.is_running]
    assert [one.options["device"] for one in running] == [1, 2]


def test_a_look_that_cannot_be_ended_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs in a driver does not even die of SIGKILL."""
    (tmp_path / "sounddevice.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("voxmlx.audio.device_group._GIVE_UP_S", 0.1, raising=False)
    killed: list[subprocess.Popen[bytes]] = []
    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "kill", lambda one: killed.append(one))
        look = LookElsewhere()
        look.start()
        look.close()
    (process,) = killed
    assert process.poll() is None
    process.kill()
    process.wait()


def test_another_process_lists_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounddevice.py").write_text(
        "def query_devices():\n"
        "    names = [('Speakers', 0), ('Mic', 1), ('BlackHole 2ch', 2), ('Mic', 2)]\n"
        "    return [{'name': k, 'max_input_channels': n} for k, n in names]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    look = LookElsewhere()
    look.start()
    deadline = time.monotonic() + 120
    while (names := look.names()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names == {"Mic": 2, "BlackHole 2ch": 1}
    (tmp_path / "sounddevice.py").write_text("raise OSError('no PortAudio')\n")
    look.start()
    while (names := look.names()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names == Counter()
    look.start()
    look.close()
    monkeypatch.setattr("sys.frozen", True, raising=False)
    look.start()  # an application that is frozen is no Python
    assert look.names() == Counter()


def test_no_other_device_takes_the_place_of_one_that_stays_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch)
    table.portaudio.unplug("BlackHole")
    table.run(30)
    assert [source.microphone.name for source in table.sources] == ["Mic", "BlackHole"]
    assert table.said == ["BlackHole is gone; waiting for it"]
    for source in table.sources:
        source.stop()
        while not source.is_ended:
            source.read(0)


def test_a_pause_after_a_stop_keeps_no_device_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(monkeypatch)
    table.run(1)
    for source in table.sources:
        source.stop()
        source.pause()
        source.resume()
        for _ in range(3):
            if not source.is_ended:
                source.read(0)
    assert all(source.is_ended for source in table.sources)
    assert len(table.portaudio.streams) == 2


def test_a_pause_after_a_stop_keeps_no_channel_from_its_end(call: Path) -> None:
    file = FileSource(open_audio(call, channel="split"))
    sources = channel_sources(file, 2)
    for source in sources:
        source.stop()
        source.pause()
    end = time.monotonic() + 60
    while time.monotonic() < end and not all(one.is_ended for one in sources):
        for source in sources:
            source.read(0.01)
    assert all(source.is_ended for source in sources)
    file.close()
