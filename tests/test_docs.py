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

from tests.markdown import GUIDE, PROJECT, README, ROOT, blocks, links
from tests.sounds import speech_like
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
    "xcode-select": "is for a Mac",
}
# These run until they are stopped.
ENDLESS = ("voxmlx serve", "voxmlx live")


def lines() -> Iterator[tuple[Path, str]]:
    """Every line of every `sh` block, with continuations joined."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    yield page, line.strip()


LINES = list(dict.fromkeys(line for _, line in lines()))


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
    sound = speech_like(3 * 16_000, seed=2)
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


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' commands name."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("interviews", "films", "voices"):
        (folder / name).mkdir()
    ffmpeg = shutil.which("ffmpeg")
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    words = {word for _, line in lines() for word in re.split(r"[\s'\"=@,]+", line)}
    for word in sorted(words | {"interviews/a.mp3", "talk.txt"}):
        place = folder / word
        suffix = place.suffix
        if suffix in (".wav", ".flac", ".mp3", ".ogg") and "*" not in word:
            soundfile.write(place, samples[: 5 * rate], rate)
        elif suffix in (".mkv", ".mov", ".m4a", ".mp4", ".webm") and ffmpeg:
            command = [ffmpeg, "-loglevel", "error", "-t", "5", "-i", demo.SAMPLE]
            subprocess.run([*command, place], check=True)
        elif word == "names.txt":
            place.write_text("Voxtral\n", encoding="utf-8")
        elif word == "spelling.txt":
            place.write_text("nine = 9\n", encoding="utf-8")
        elif word == "talk.txt":
            place.write_text("seven oh seven zero nine two\n", encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [line for line in LINES if not any(part in line for part in NOT_RUN)],
)
def test_every_line_runs(line: str, desk: Path) -> None:
    """In turn, in one folder: some lines use what those before them wrote."""
    if "ffmpeg" in line and shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    model = str(demo.DIRECTORY)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "VOXMLX_MODEL": model,
    }
    is_endless = line.startswith(ENDLESS) and "--input" not in line
    process = subprocess.Popen(
        ["bash", "-ec", f"exec {HUB_ID.sub(model, line)}"]
        if is_endless
        else ["bash", "-euo", "pipefail", "-c", HUB_ID.sub(model, line)],
        cwd=desk,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=20 if is_endless else 900)
    except subprocess.TimeoutExpired:
        assert is_endless
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    if "no microphone" in out or "PortAudio" in out:
        pytest.skip("there is no microphone here")
    assert process.returncode == 0, out


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
