"""A microphone is heard whole, through everything that can happen to it."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.live.fake_portaudio import FakePortAudio
from voxmlx.audio import microphone as module
from voxmlx.audio.devices import describe_devices, import_portaudio
from voxmlx.audio.microphone import Microphone
from voxmlx.errors import DeviceError


class Room:
    """A fake PortAudio, a clock that tests move, and what was said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **rates: float) -> None:
        self.portaudio = FakePortAudio(**rates)
        self.now = 100.0
        self.said: list[str] = []
        monkeypatch.setattr(module.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def open(self, device: str | int | None = None) -> Microphone:
        return Microphone(
            device,
            self.said.append,
            portaudio=self.portaudio,
            clock=lambda: self.now,
        )

    def speak(self, samples: np.ndarray) -> None:
        for block in np.split(samples, range(160, len(samples), 160)):
            self.now += len(block) / 16_000
            self.portaudio.streams[-1].record(block)


def read_for(microphone: Microphone, room: Room, seconds: float) -> np.ndarray:
    """All that is read while the clock runs for so long."""
    end = room.now + seconds
    parts = [np.zeros(0, np.float32)]
    while room.now < end:
        blocks = microphone.read(0)
        parts += [block.samples for block in blocks]
        if not blocks:
            room.now += 0.01
    return np.concatenate(parts)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch, Inside=16_000.0, Outside=48_000.0)


def noise(seconds: float, rate: int = 16_000) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, round(seconds * rate)).astype(np.float32)


def test_what_is_heard_is_read_sample_for_sample_with_its_time(room: Room) -> None:
    microphone = room.open()
    sound = noise(0.5)
    room.speak(sound)
    blocks = microphone.read(0)
    np.testing.assert_array_equal(np.concatenate([b.samples for b in blocks]), sound)
    assert [b.time for b in blocks] == pytest.approx(100 + 0.01 * np.arange(1, 51))


def test_another_rate_is_resampled_in_blocks_of_ten_milliseconds(room: Room) -> None:
    microphone = room.open("outside")
    options = room.portaudio.streams[-1].options
    assert (options["samplerate"], options["blocksize"]) == (48_000, 480)
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    for block in np.split(tone, 100):
        room.portaudio.streams[-1].record(block)
    microphone.stop()
    parts = [b.samples for b in microphone.read(0) + microphone.read(0)]
    heard = np.concatenate(parts)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(heard) == 16_000
    np.testing.assert_allclose(heard[200:-200], expected[200:-200], atol=1e-3)


def test_stopping_leaves_what_was_heard_to_be_read(room: Room) -> None:
    microphone = room.open()
    room.speak(noise(0.1))
    microphone.stop()
    room.speak(noise(0.1))  # too late
    n_read = 0
    while not microphone.is_ended:
        n_read += sum(len(b.samples) for b in microphone.read(0))
    assert n_read == 1600


@pytest.mark.parametrize(
    ("device", "name"),
    [(None, "Inside"), (2, "Outside"), ("side", None), ("out", "Outside")],
)
def test_a_device_is_chosen_by_number_or_a_part_of_its_name(
    room: Room, device: str | int | None, name: str | None
) -> None:
    if name is None:
        with pytest.raises(DeviceError, match="matches several"):
            room.open(device)
    else:
        assert room.open(device).name == name


@pytest.mark.parametrize("device", [0, 9, "Speakers", "nothing"])
def test_a_wrong_device_is_an_error_that_lists_the_right_ones(
    room: Room, device: str | int
) -> None:
    with pytest.raises(
        DeviceError, match=r"1: Inside .16000 Hz, 2 inputs., 2: Outside .48000"
    ):
        room.open(device)


def test_devices_are_listed_with_number_name_and_rate(room: Room) -> None:
    assert describe_devices(room.portaudio) == [
        "1: Inside (16000 Hz, 2 inputs)",
        "2: Outside (48000 Hz, 2 inputs)",
    ]


def test_no_microphone_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="there is no microphone; plug one in"):
        Room(monkeypatch).open()


def test_a_device_in_use_is_an_error(room: Room) -> None:
    room.portaudio.is_busy = True
    with pytest.raises(DeviceError, match="Inside cannot be opened: Device unavail"):
        room.open()
    assert not room.portaudio.streams[-1].is_open


def test_a_missing_portaudio_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Missing(ModuleType):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing("missing"), *sys.meta_path])
    with pytest.raises(DeviceError, match=r"brew install portaudio .* libportaudio2"):
        import_portaudio()


def test_exact_silence_is_explained_once_after_two_seconds(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    microphone = room.open()
    room.speak(np.zeros(31_840, np.float32))
    microphone.read(0)
    assert room.said == []
    room.speak(np.zeros(64_000, np.float32))
    microphone.read(0)
    (sentence,) = room.said
    assert "Privacy & Security > Microphone" in sentence


def test_a_quiet_room_is_not_taken_for_a_mute_microphone(room: Room) -> None:
    microphone = room.open()
    room.speak(noise(0.01) * np.float32(1e-5))
    room.speak(np.zeros(64_000, np.float32))
    microphone.read(0)
    assert room.said == []


def inputs(*each: np.ndarray) -> np.ndarray:
    return np.stack(each, axis=1).astype(np.float32)


def open_with_inputs(
    room: Room, n_inputs: int, channel: int | None = None
) -> Microphone:
    room.portaudio.n_inputs = n_inputs
    return Microphone(
        None,
        room.said.append,
        channel=channel,
        portaudio=room.portaudio,
        clock=lambda: room.now,
    )


def all_read(microphone: Microphone) -> np.ndarray:
    return np.concatenate([block.samples for block in microphone.read(0)])


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_input_that_carries_sound_is_heard_from_its_first_sample(
    room: Room, number: int
) -> None:
    microphone = open_with_inputs(room, 4)
    assert room.portaudio.streams[-1].options["channels"] == 4
    sound = noise(0.5)
    four = [np.zeros_like(sound)] * 4
    four[number - 1] = sound
    room.speak(inputs(*four))
    np.testing.assert_array_equal(all_read(microphone), sound)
    said = f"hearing input {number} of the 4 of Inside; --channel {number} keeps to it"
    assert room.said == ([said] if number > 1 else [])


def test_a_voice_wins_against_hum_on_another_input_and_keeps_its_pauses(
    room: Room,
) -> None:
    microphone = open_with_inputs(room, 2)
    time_s = np.arange(16_000 * 5) / 16_000
    hum = 0.014 * np.sin(2 * np.pi * 50 * time_s)
    voice = noise(5.0) * 0.1 * (time_s > 1)
    voice[32_000:] = 1e-4  # a pause of three seconds
    room.speak(inputs(hum, voice))
    heard = all_read(microphone)
    np.testing.assert_array_equal(heard[:16_000], hum[:16_000].astype(np.float32))
    np.testing.assert_array_equal(heard[16_800:], voice[16_800:].astype(np.float32))
    assert [sentence[:15] for sentence in room.said] == ["hearing input 2"]


def test_two_inputs_of_one_voice_do_not_take_turns(room: Room) -> None:
    microphone = open_with_inputs(room, 2)
    left = noise(3.0) * 0.1
    right = left * (1 + 0.5 * np.sin(np.arange(len(left)) / 3000))
    room.speak(inputs(left, right))
    np.testing.assert_array_equal(all_read(microphone), left)
    assert room.said == []


def test_a_click_on_an_idle_input_is_no_sound(room: Room) -> None:
    microphone = open_with_inputs(room, 2)
    voice = noise(1.0) * np.float32(0.05)
    click = np.zeros_like(voice)
    click[8000:8016] = 0.9
    room.speak(inputs(voice, click))
    np.testing.assert_array_equal(all_read(microphone), voice)


@pytest.mark.parametrize(("channel", "expected"), [(1, 0.25), (2, 0.5), ("mix", 0.375)])
def test_an_input_that_is_asked_for_is_heard_whatever_the_others_carry(
    room: Room, channel: Any, expected: float
) -> None:
    microphone = open_with_inputs(room, 2, channel)
    room.speak(inputs(np.full(3200, 0.25), np.full(3200, 0.5)))
    np.testing.assert_array_equal(all_read(microphone), np.full(3200, expected))
    assert room.said == []


def test_an_input_that_is_not_there_is_an_error(room: Room) -> None:
    with pytest.raises(DeviceError, match="Inside has 1 input, --channel 2 is none of"):
        open_with_inputs(room, 1, 2)


@pytest.mark.parametrize(
    ("platform", "environment", "name", "channel", "advice"),
    [
        ("darwin", {"TERM_PROGRAM": "iTerm.app"}, "Inside", None, "allow iTerm the"),
        ("darwin", {}, "Inside", None, "allow this terminal the microphone"),
        ("darwin", {"SSH_CONNECTION": "1"}, "Inside", None, "over SSH macOS gives no"),
        ("darwin", {}, "BlackHole 2ch", None, "it carries what other programs play"),
        ("darwin", {}, "Inside", 1, "but input 2 carries sound: choose it with"),
        ("linux", {}, "Inside", None, "on all its 2 inputs: is it muted"),
    ],
)
def test_the_advice_about_zeros_fits_their_cause(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    environment: dict[str, str],
    name: str,
    channel: int | None,
    advice: str,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for variable in ("TERM_PROGRAM", "SSH_CONNECTION"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    room = Room(monkeypatch, **{name: 16_000.0})
    microphone = open_with_inputs(room, 2, channel)
    silence = np.zeros(16_000 * 3)
    room.speak(inputs(silence, noise(3.0) if channel else silence))
    microphone.read(0)
    (sentence,) = room.said
    assert f"of {name} delivers only zeros" in f"of {sentence}"
    assert advice in sentence


def test_a_device_with_fewer_inputs_takes_the_place_of_a_lost_one(room: Room) -> None:
    microphone = open_with_inputs(room, 4, 3)
    room.portaudio.unplug("Inside")
    room.portaudio.n_inputs = 1
    read_for(microphone, room, 9.5)
    assert room.said[-1] == "Inside did not come back; hearing Outside instead"
    assert room.portaudio.streams[-1].options["channels"] == 1


def test_an_unplugged_device_is_waited_for_and_time_goes_on(room: Room) -> None:
    microphone = room.open("Outside")
    microphone.read(0)
    room.portaudio.unplug("Outside")
    silence = read_for(microphone, room, 5.0)
    assert room.said == ["Outside is gone; waiting for it"]
    room.portaudio.plugged["Outside"] = 48_000.0
    silence = np.concatenate([silence, read_for(microphone, room, 0.5)])
    assert room.said[1:] == ["Outside is back"]
    assert not silence.any()
    room.portaudio.streams[-1].record(noise(0.5, 48_000))
    heard_s = sum(len(b.samples) for b in microphone.read(0)) / 16_000
    assert heard_s == pytest.approx(0.5, abs=0.02)  # the resampler looks ahead
    # Stream time has followed the clock until then.
    assert len(silence) / 16_000 == pytest.approx(5.0, abs=0.02)


def test_a_sound_server_that_holds_sound_back_for_two_seconds_loses_none(
    room: Room,
) -> None:
    microphone = room.open()
    held = read_for(microphone, room, 2.5)
    room.portaudio.streams[-1].record(noise(2.5))
    assert len(held) == 0
    assert sum(len(b.samples) for b in microphone.read(0)) == 2.5 * 16_000
    assert room.said == []


def test_a_device_that_stays_away_is_replaced_by_the_default_one(room: Room) -> None:
    microphone = room.open("Outside")
    room.portaudio.unplug("Outside")
    read_for(microphone, room, 6.0)
    assert microphone.name == "Outside"
    read_for(microphone, room, 2.5)
    assert room.said[1:] == ["Outside did not come back; hearing Inside instead"]
    room.speak(noise(0.1))
    assert sum(len(b.samples) for b in microphone.read(0)) == 1600


def test_with_no_device_left_it_goes_on_waiting_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room(monkeypatch, Only=16_000.0)
    microphone = room.open()
    room.portaudio.unplug("Only")
    assert len(read_for(microphone, room, 30.0)) > 28 * 16_000
    assert room.said == ["Only is gone; waiting for it"]
    microphone.stop()
    assert microphone.is_ended


def test_sound_that_finds_no_room_is_counted_and_said(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING_S", 60.0)
    microphone = room.open()
    for _ in range(61):
        room.speak(noise(1.0))
    assert sum(len(b.samples) for b in microphone.read(0)) == 60 * 16_000
    assert len(room.said) == 1
    assert "lost" in room.said[0]


def test_sound_that_the_system_lost_is_said_once(room: Room) -> None:
    microphone = room.open()
    for _ in range(3):
        room.portaudio.streams[-1].record(noise(0.01), has_overflowed=True)
        assert len(microphone.read(0)) == 1
    (sentence,) = room.said
    assert "lost some sound of Inside" in sentence


def test_a_pause_closes_the_device_and_stands_still_until_it_is_opened_again(
    room: Room,
) -> None:
    microphone = room.open("Inside")
    room.speak(noise(0.1))
    microphone.pause()
    assert not room.portaudio.streams[-1].is_open
    heard = np.concatenate([block.samples for block in microphone.read(0)])
    np.testing.assert_array_equal(heard, noise(0.1))
    microphone.pause()
    room.now += 60
    assert microphone.read(0) == []  # not even silence
    for _ in range(2):
        microphone.resume()
        assert len(room.portaudio.streams) == 2
        assert room.portaudio.streams[-1].is_open
    assert microphone.read(0) == []
    room.speak(noise(0.2))
    heard = np.concatenate([block.samples for block in microphone.read(0)])
    np.testing.assert_array_equal(heard, noise(0.2))
    microphone.pause()
    microphone.stop()
    assert microphone.is_ended


def test_a_device_that_is_unplugged_in_a_pause_is_waited_for(room: Room) -> None:
    microphone = room.open("Inside")
    room.portaudio.unplug("Inside")
    microphone.pause()
    room.portaudio.look()
    room.now += 60
    microphone.resume()
    assert room.said == ["Inside is gone; waiting for it"]
    # Silence from then on, none for the pause.
    assert len(read_for(microphone, room, 2.0)) == pytest.approx(32_000, abs=400)
    room.portaudio.plugged["Inside"] = 16_000.0
    read_for(microphone, room, 1.5)
    assert room.said[-1] == "Inside is back"


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Devices 1 and 2 have one name, device 3 another that begins with it."""
    return Room(
        monkeypatch, **{"USB#1": 16_000.0, "USB#2": 16_000.0, "USB Audio": 16_000.0}
    )


def opened(room: Room) -> int:
    """Return the number of the device that was opened last."""
    return room.portaudio.streams[-1].options["device"]


@pytest.mark.parametrize("number", [1, 2])
def test_after_a_pause_the_same_of_two_devices_of_one_name_is_open(
    twins: Room, number: int
) -> None:
    microphone = twins.open(number)
    microphone.pause()
    microphone.resume()
    assert (opened(twins), len(twins.portaudio.streams)) == (number, 2)
    assert twins.said == []


@pytest.mark.parametrize("number", [1, 2])
def test_the_same_of_two_devices_of_one_name_comes_back(
    twins: Room, number: int
) -> None:
    microphone = twins.open(number)
    twins.portaudio.unplug(f"USB#{number}")
    read_for(microphone, twins, 6.0)
    assert twins.said == ["USB is gone; waiting for it"]  # the other one is another
    twins.portaudio.plug(f"USB#{number}", 16_000.0, number)
    read_for(microphone, twins, 1.5)
    assert twins.said[1:] == ["USB is back"]
    assert opened(twins) == number


def test_a_device_is_known_again_where_others_have_moved_it(twins: Room) -> None:
    microphone = twins.open(2)
    twins.portaudio.unplug("USB#2")
    read_for(microphone, twins, 4.0)
    twins.portaudio.plug("USB#2", 16_000.0, 2)
    twins.portaudio.plug("Headset", 16_000.0, 1)
    read_for(microphone, twins, 2.0)
    assert twins.said[1:] == ["USB is back"]
    assert opened(twins) == 3


def test_a_device_whose_name_begins_alike_is_not_the_lost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room(monkeypatch, **{"USB": 16_000.0, "USB Audio": 16_000.0})
    microphone = room.open(1)
    room.portaudio.unplug("USB")
    read_for(microphone, room, 6.0)
    assert room.said == ["USB is gone; waiting for it"]


@pytest.mark.parametrize("device", ["Inside", "Outside"])
def test_a_pause_after_a_stop_does_not_keep_the_stream_from_its_end(
    room: Room, device: str
) -> None:
    microphone = room.open(device)
    room.speak(noise(0.1))
    microphone.stop()
    microphone.pause()
    for _ in range(3):
        if not microphone.is_ended:
            microphone.read(0)
    assert microphone.is_ended


@pytest.mark.parametrize("device", ["Inside", "Outside"])
def test_a_stop_in_a_pause_loses_nothing_and_the_device_stays_closed(
    room: Room, device: str
) -> None:
    microphone = room.open(device)
    room.speak(noise(0.1))
    microphone.pause()
    microphone.stop()
    parts: list[np.ndarray] = []
    while not microphone.is_ended:
        parts += [block.samples for block in microphone.read(0)]
    assert parts
    microphone.resume()
    assert len(room.portaudio.streams) == 1
    assert not room.portaudio.streams[-1].is_open
    assert microphone.is_ended
    assert not microphone.is_lost
