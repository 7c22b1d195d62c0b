"""What README and guide tell a user to run does run."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.held_out import held_out
from tests.markdown import GUIDE, PROJECT, README, ROOT, blocks, links
from voxmlx import demo
from voxmlx.__main__ import COMMANDS
from voxmlx.checkpoint import Checkpoint
from voxmlx.cli.arguments import DEFAULT_MODEL

PAGES = [README, *GUIDE, *PROJECT]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "urls"
]

# Models of the Hub that the pages name; the demo's directory stands in for them.
HUB_ID = re.compile(r"\b(?:mlx-community|mistralai)/[\w.-]+")

# Commands that a test cannot run, by a part of the line.
NOT_RUN = {
    "apt-get": "installs on the machine",
    "curl ": "needs the server of the line before",
    "python -m benchmarks": "takes up to three hours: asked for its help below",
    "git clone": "is on another machine",
    "pip ": "is run by .ci/run",
    "pre-commit": "changes the repository",
    "pytest": "is run by .ci/run",
    "rtsp://": "is on another machine",
    "ws://192.168": "is on another machine",
    "vllm serve": "is another program",
    "venv": "is run by .ci/run",
    "xcode-select": "is for a Mac",
}
SOUNDS = (".wav", ".flac", ".mp3", ".ogg")
FILMS = (".mkv", ".mov", ".m4a", ".mp4", ".webm")
TEXTS = {
    "names.txt": "Voxtral\n",
    "spelling.txt": "nine = 9\n",
    "talk.txt": "seven oh seven zero nine two\n",
}


def joined(block: str) -> list[str]:
    """The commands of a block, with continuations joined and without comments."""
    lines = (line.strip() for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


LINES = list(
    dict.fromkeys(
        line for page in PAGES for one in blocks(page, "sh") for line in joined(one)
    )
)


def commands_of_ours(line: str) -> Iterator[list[str]]:
    """The words after `voxmlx` of every part of a line that calls it."""
    for part in re.split(r"\||&&|>|;", line):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["voxmlx"]:
            yield words[1:]


@pytest.mark.parametrize(
    ("page", "snippet"),
    [
        pytest.param(page, snippet, id=f"{page.stem}-{n}")
        for page in PAGES
        for n, snippet in enumerate(blocks(page, "python"))
    ],
)
def test_every_python_snippet_runs(
    page: Path,
    snippet: str,
    tiny_checkpoint: Checkpoint,
    tiny_checkpoint_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = held_out("flite")[2].samples
    soundfile.write("talk.wav", (sound * 32768).astype(np.int16), 16_000)
    snippet = snippet.replace(DEFAULT_MODEL, str(tiny_checkpoint_dir))
    assert not HUB_ID.search(snippet)
    exec(compile(snippet, page.name, "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", [line for line in LINES if "voxmlx " in line])
def test_every_command_takes_the_arguments_that_the_pages_give_it(line: str) -> None:
    for command, *words in commands_of_ours(line):
        if command in COMMANDS:
            import_module(COMMANDS[command][0]).make_parser().parse_args(words)
        else:
            assert command == "completion"


def test_every_module_that_the_pages_run_is_there() -> None:
    modules: set[str] = set()
    for page in PAGES:
        found = re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))
        modules |= set(found)
    modules -= {"pytest", "venv"}
    assert modules
    for module in modules:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def test_every_file_that_the_overview_names_is_there() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert rows
    for row in rows:
        first, *more = re.findall(r"`([^`]+)`", row)
        assert (ROOT / first).exists(), first
        for name in more:
            assert ((ROOT / first).parent / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors that GitHub and mkdocs give to headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).lower() for heading in found]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_this_project_name_its_repository_and_its_site(page: Path) -> None:
    raw = URLS["Repository"].replace("github.com", "raw.githubusercontent.com")
    for link in links(page):
        if "voxmlx-realtime" in link and "pypi.org" not in link:
            assert link.startswith((URLS["Repository"], URLS["Documentation"], raw))
            if link.startswith(raw):
                assert (ROOT / link.removeprefix(f"{raw}/main/")).is_file()


def test_the_readmes_pictures_are_absolute() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert picture.startswith("https://")


def runnable(block: str) -> list[str]:
    """The block's lines that a test can run."""
    return [line for line in joined(block) if not any(n in line for n in NOT_RUN)]


def set_the_desk(block: str, folder: Path) -> None:
    """Make the files that the block's commands read."""
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    text = re.sub(r"(--record|--output|-o|-out|-keyout|>) *\S+", "", block)
    for word in re.split(r"[\s'\"=@]+", text):
        place = folder / word.replace("*", "monday")
        if "://" in word or place.exists():
            continue
        if place.suffix in SOUNDS:
            place.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place, samples[: 5 * rate], rate)
        elif place.suffix in FILMS:
            source = folder / "source.wav"
            soundfile.write(source, samples[: 5 * rate], rate)
            convert = ["ffmpeg", "-loglevel", "error", "-i", source, place]
            subprocess.run(convert, check=True)
        elif place.name in TEXTS:
            place.write_text(TEXTS[place.name], encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.stem}-{n}")
        for page in PAGES
        for n, block in enumerate(blocks(page, "sh"))
        if runnable(block)
    ],
)
def test_every_block_of_commands_runs(page: Path, block: str, tmp_path: Path) -> None:
    """In a folder with the files it names; a server or microphone for 20 seconds."""
    del page
    if shutil.which("ffmpeg") is None:
        pytest.skip("install ffmpeg, which makes the films")
    set_the_desk(block, tmp_path)
    for line in runnable(block):
        status, out = run_line(line, tmp_path)
        if "PortAudio" in out or "no microphone" in out or "no input device" in out:
            continue  # nobody can hear on this machine
        assert status == 0, f"{line}\n{out}"


def run_line(line: str, folder: Path) -> tuple[int, str]:
    """The status of a line and all that it printed; endless ones get Ctrl-C."""
    model = str(demo.DIRECTORY)
    is_endless = re.search(r"voxmlx (serve|live)", line) and "--input" not in line
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", HUB_ID.sub(model, line)],
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "VOXMLX_MODEL": model,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=20 if is_endless else 900)
    except subprocess.TimeoutExpired:
        assert is_endless, f"{line} does not end"
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    return process.returncode, out


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    sorted({m for line in LINES for m in re.findall(r"python -m ([\w.]+)", line)}),
)
def test_every_module_that_the_pages_run_explains_itself(module: str) -> None:
    if module in ("pytest", "venv"):
        return
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
