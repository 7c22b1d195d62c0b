"""What the README tells a user to run does run."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.sounds import speech_like
from voxmlx.arguments import DEFAULT_MODEL
from voxmlx.checkpoint import Checkpoint
from voxmlx.transcribe import main as transcribe

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_every_python_snippet_runs(
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
    assert DEFAULT_MODEL in snippet
    snippet = snippet.replace(DEFAULT_MODEL, str(tiny_checkpoint_dir))
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip()


def test_every_command_names_a_module_that_is_there() -> None:
    modules = set()
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line)
        modules |= {words[i + 1] for i, word in enumerate(words) if word == "-m"}
    modules -= {"pytest"}
    assert modules
    for module in modules:
        place = Path(__file__).parent.parent / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def test_the_demo_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = README.split("voxmlx.transcribe --demo\n```\n\n```\n")[1].split("```")[0]
    assert transcribe(["--demo"]) == 0
    assert capsys.readouterr().out == shown


def test_ci_runs_the_readmes_test_command() -> None:
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text(encoding="utf-8")
    install, run = next(b for b in blocks("sh") if "pytest" in b).strip().split(" && ")
    assert run in ci.splitlines()
    assert install.replace("[dev]", "[dev,parity]").split()[-1] in ci
