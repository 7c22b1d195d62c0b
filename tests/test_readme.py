"""README's two commands: one installs and runs, one installs and runs the tests."""

import tomllib

import pytest

from tests.markdown import README, ROOT, blocks
from voxmlx.transcribe import main as transcribe

COMMANDS = [block.strip() for block in blocks(README, "sh")]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_demo_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.split("voxmlx.transcribe --demo\n```\n\n```\n")[1].split("```")[0]
    assert transcribe(["--demo"]) == 0
    assert capsys.readouterr().out == shown


def test_ci_runs_the_readmes_test_command() -> None:
    install, run = next(one for one in COMMANDS if "pytest" in one).split(" && ")
    assert run in CI.splitlines()
    assert install.replace("[dev]", "[dev,docs,parity]").split()[-1] in CI


def test_a_bare_debian_gets_the_packages_that_a_clone_needs() -> None:
    text = README.read_text(encoding="utf-8")
    assert "apt-get install git python3 python3-venv" in text
    assert "python3 -m venv .venv && . .venv/bin/activate" in COMMANDS


def test_the_extras_that_the_readme_names_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for extra in ("dev", "serve"):
        assert extra in project["project"]["optional-dependencies"]
