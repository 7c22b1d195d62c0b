"""AMI: headset recordings, and the XML of words and segments of the annotations."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]

# Meetings of the corpus' own partition for speech recognition.
_MEETINGS = {
    "test": ("ES2004", "IS1009", "TS3003", "EN2002"),
    "dev": (
        "ES2011",
        "IS1008",
        "TS3004",
        "IB4001",
        "IB4002",
        "IB4003",
        "IB4004",
        "IB4010",
        "IB4011",
    ),
}
_NITE = "{http://nite.sourceforge.net/}"


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the meetings of the split whose headset recordings are under `path`."""
    words = next((d for d in (path / "words", *path.glob("*/words")) if d.is_dir()), 0)
    if not isinstance(words, Path) or not (words.parent / "segments").is_dir():
        return []
    read = partial(_read, path, words.parent, split)
    return [SpeechSet(f"ami-ihm/{split}", "en", read)]


def _read(root: Path, annotations: Path, split: str) -> Iterator[CorpusRecording]:
    headsets = {file.name: file for file in root.rglob("*.Headset-*.wav")}
    channels = _channels(annotations)
    for file in sorted((annotations / "segments").glob("*.segments.xml")):
        meeting, agent = file.name.split(".")[:2]
        if not meeting.startswith(_MEETINGS.get(split, ("",))):
            continue
        channel = channels.get((meeting, agent), ord(agent) - ord("A"))
        sound = headsets.get(f"{meeting}.Headset-{channel}.wav")
        if sound is None:
            raise AudioError(f"{meeting}.Headset-{channel}.wav is not under {root}")
        segments = tuple(_segments(annotations, file, f"{meeting}.{agent}"))
        yield CorpusRecording(sound, segments)


def _channels(annotations: Path) -> dict[tuple[str, str], int]:
    """Return which headset each speaker wears, where meetings.xml is there to tell."""
    file = annotations / "corpusResources" / "meetings.xml"
    if not file.is_file():
        return {}
    return {
        (meeting.attrib["observation"], one.attrib["nxt_agent"]): int(
            one.attrib["channel"]
        )
        for meeting in ElementTree.parse(file).getroot()
        for one in meeting.iter("speaker")
    }


def _segments(annotations: Path, file: Path, name: str) -> Iterator[TimedText]:
    tree = ElementTree.parse(annotations / "words" / f"{name}.words.xml")
    items = list(tree.getroot())
    places = {item.attrib[f"{_NITE}id"]: i for i, item in enumerate(items)}
    rows: list[tuple[float, float, str]] = []
    for segment in ElementTree.parse(file).getroot().iter("segment"):
        start = float(segment.attrib["transcriber_start"])
        end = float(segment.attrib["transcriber_end"])
        for child in segment.iter(f"{_NITE}child"):
            ids = re.findall(r"id\(([^)]*)\)", child.attrib["href"])
            inside = items[places[ids[0]] : places[ids[-1]] + 1]
            text = " ".join(
                item.text
                for item in inside
                if item.tag == "w" and "punc" not in item.attrib and item.text
            )
            if text:
                rows.append((start, end, text))
    for start, end, text in sorted(rows):
        yield TimedText(f"{name}-{start:.2f}", text, start, end)
