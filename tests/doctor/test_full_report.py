"""One file with everything about a machine, and the table of such files."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mac_results
from voxmlx import Checkpoint
from voxmlx.doctor import __main__ as doctor
from voxmlx.doctor import full_report
from voxmlx.doctor.estimate import Speed
from voxmlx.doctor.full_report import measured_steps, power_of, power_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("full") / "doctor.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "measured_speed", lambda: Speed(68e9, 3e-6))
        patch.setattr(doctor, "_N_STEPS", 3)
        patch.setattr(doctor, "measure_kernels", lambda *_, **__: [])
        patch.setattr(full_report, "_PACED_S", 0.001)
        arguments = ["--demo", "--full", str(path), "--steps", "4"]
        assert doctor.main(arguments) == 0
    return json.loads(path.read_text("utf-8"))


def test_the_file_says_everything(report: dict[str, Any]) -> None:
    assert report["format"] == full_report.FORMAT
    assert report["model"] == "demo"
    kinds = [(s["is_paced"], s["is_full"]) for s in report["measured_steps"]]
    assert kinds == [(False, False), (False, True), (True, False), (True, True)]
    for steps in report["measured_steps"]:
        assert steps["n_steps"] == 4
        assert 0 < steps["median_ms"] <= steps["p95_ms"] <= steps["p99_ms"]
        assert steps["p99_ms"] <= steps["longest_ms"]
        assert steps["tokens_per_s"] > 0
    assert report["memory"]["process_peak_bytes"] > 10**7
    assert report["machine"]["packages"]["mlx"]
    assert report["faults"] == []
    assert len(report["estimates"]) > 4


def test_a_file_that_exists_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text("precious", "utf-8")
    assert doctor.main(["--demo", "--full", str(path)]) == 1
    assert path.read_text("utf-8") == "precious"
    assert "exists; name another file" in capsys.readouterr().err
    assert doctor.main(["--demo", "--full", str(tmp_path / "no" / "x.json")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert doctor.main(["--model", "no/such/model", "--full", str(path)]) == 1
    assert not path.exists()


@pytest.mark.parametrize("text", ["1", "0", "-3", "many"])
def test_too_few_steps_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        doctor.main(["--demo", "--full", "--steps", text])
    assert raised.value.code == 2
    assert "is not a whole number above 1" in capsys.readouterr().err


def test_paced_steps_begin_80_ms_apart(tiny_checkpoint: Checkpoint) -> None:
    now = 0.0
    slept: list[float] = []

    def clock() -> float:
        """Every reading takes 10 ms; between start and end of a step there is one."""
        nonlocal now
        now += 0.01
        return now

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    found = measured_steps(
        tiny_checkpoint,
        3,
        kv_bits=16,
        is_paced=True,
        is_full=True,
        clock=clock,
        sleep=sleep,
    )
    assert slept == pytest.approx([0.07] + [0.05] * 12)
    assert found.median_ms == pytest.approx(10)
    assert found.tokens_per_s == pytest.approx(100)
    assert found.n_late == 0


def test_the_power_source_is_what_macos_says(tmp_path: Path) -> None:
    page = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t93%\n"
    assert power_of(page) == "Battery Power"
    assert power_of("") == "unknown"
    assert power_source(tmp_path) == "unknown"
    (tmp_path / "BAT0").mkdir()
    assert power_source(tmp_path) == "Battery Power"
    (tmp_path / "AC").mkdir()
    (tmp_path / "AC" / "online").write_text("1\n", "utf-8")
    assert power_source(tmp_path) == "AC Power"


def test_a_file_makes_a_row(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report), "utf-8")
    assert mac_results.main([str(path)]) == 0
    header, rule, row = capsys.readouterr().out.splitlines()
    n_cells = len(mac_results.COLUMNS) + 1
    assert [line.count("|") for line in (header, rule, row)] == [n_cells] * 3
    assert "| demo | 16 |" in row
    path.write_text(json.dumps({**report, "format": 0}), "utf-8")
    with pytest.raises(SystemExit, match="has the format 0, expected 1"):
        mac_results.main([str(path)])


def test_the_documentation_has_the_table_of_all_files() -> None:
    paths = sorted(mac_results.FOLDER.glob("*.json"))
    reports = [json.loads(path.read_text("utf-8")) for path in paths]
    page = (ROOT / "docs" / "macs.md").read_text("utf-8")
    assert "\n".join(mac_results.table(reports)) in page


def test_every_step_of_the_macs_job_runs_here_too() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    job = workflow[workflow.index("  mac:") :]
    commands = re.findall(r"run: (.+)", job)
    local = (ROOT / ".ci" / "run").read_text("utf-8")
    install, tests, script = commands
    assert install == 'pip install -e ".[dev]"'
    assert script == ".ci/mac"
    for needed in ("pip install --quiet -e", f"\n{tests}\n", "\n.ci/mac "):
        assert needed in local
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "mac")], check=True)
