"""Arguments, error lines and exit statuses that all commands share."""

import argparse
import ast
from pathlib import Path

import pytest

from voxmlx.cli.arguments import (
    add_model_arguments,
    add_version_argument,
    load_model,
    report_error,
    run_command,
)
from voxmlx.errors import CheckpointError, VoxmlxError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_version_argument(parser)
    return parser.parse_args(arguments)


def test_the_defaults_are_the_published_model_and_its_own_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VOXMLX_MODEL", raising=False)
    arguments = parse()
    assert (arguments.model, arguments.dtype, arguments.delay) == (
        "mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit",
        "auto",
        None,
    )
    assert arguments.kv_bits == 16


@pytest.mark.parametrize(
    "wrong",
    [["--delay", "soon"], ["--delay", "80.5"], ["--dtype", "int4"], ["--kv-bits", "4"]],
)
def test_arguments_that_are_no_arguments_exit_with_2(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(*wrong)
    assert wrong[1] in capsys.readouterr().err


def test_an_illegal_delay_is_left_to_who_knows_the_legal_ones() -> None:
    assert parse("--delay", "100").delay == 100


def test_the_version_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--version")
    assert capsys.readouterr().out.startswith("voxmlx ")


def test_a_model_that_is_not_there_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="no/such/directory"):
        load_model(parse("--model", "no/such/directory"))


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(VoxmlxError("two\nlines"))
    assert capsys.readouterr().err == "voxmlx: error: two lines\n"


def test_the_status_of_a_command_is_its_own() -> None:
    assert [run_command(lambda: 0), run_command(lambda: 1)] == [0, 1]


def test_an_error_becomes_a_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise CheckpointError("no such model")

    assert run_command(fail) == 1
    assert capsys.readouterr() == ("", "voxmlx: error: no such model\n")


def test_ctrl_c_becomes_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert run_command(interrupt) == 130
    assert capsys.readouterr() == ("", "")


def test_a_mistake_of_ours_is_not_hidden() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(fail)


ROOT = Path(__file__).parents[2]
COMMANDS = ("voxmlx", "convert", "benchmarks", "training", ".ci")


def test_no_command_takes_an_abbreviated_option() -> None:
    n_parsers = 0
    for path in (path for name in COMMANDS for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name.endswith("ArgumentParser"):
                n_parsers += 1
                said = {keyword.arg: keyword.value for keyword in node.keywords}
                assert ast.unparse(said.get("allow_abbrev", node)) == "False", path
    assert n_parsers > 15
