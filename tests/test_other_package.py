"""Another package that installs the same folder is noticed, and said how to mend."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from voxmlx.cli.arguments import run_command
from voxmlx.other_package import MENDED_BY, other_package

ROOT = Path(__file__).parent.parent


def test_our_own_installation_is_not_the_other_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "voxmlx_realtime-0.1.0.dist-info").mkdir()
    (tmp_path / "voxmlx_plugin-0.1.0.dist-info").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path), "", str(tmp_path / "missing")])
    assert other_package() is None
    assert run_command(lambda: 0) == 0
    assert capsys.readouterr().err == ""


def test_a_search_path_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a folder without permission does, a name too long raises from `is_dir`.
    (tmp_path / "voxmlx-0.0.2.dist-info").mkdir()
    monkeypatch.setattr("sys.path", ["a" * 300, str(tmp_path)])
    assert other_package() == tmp_path / "voxmlx-0.0.2.dist-info"
    assert run_command(lambda: 0) == 0


def test_every_command_says_that_the_other_package_is_installed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "voxmlx-0.0.2.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert run_command(lambda: 0) == 0
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "voxmlx 0.0.2" in printed
    assert MENDED_BY in printed


def test_the_guide_mends_it_the_same_way() -> None:
    guide = ROOT / "docs" / "troubleshooting.md"
    assert MENDED_BY.replace(" && ", "\n") in guide.read_text(encoding="utf-8")


def test_the_other_package_over_ours_ends_in_a_line_that_says_so(
    tmp_path: Path,
) -> None:
    """Its files as version 0.0.2 has them: what it imports first is our folder audio."""
    shutil.copytree(ROOT / "voxmlx", tmp_path / "voxmlx")
    (tmp_path / "voxmlx-0.0.2.dist-info").mkdir()
    package = tmp_path / "voxmlx"
    (package / "__init__.py").write_text("from .generate import generate\n", "utf-8")
    (package / "generate.py").write_text("from .audio import load_audio\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "voxmlx", "live"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert MENDED_BY in done.stderr.splitlines()[-1]
