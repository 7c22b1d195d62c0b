"""The one command `voxmlx`: it finds the others, and says what is wrong in one line."""

import shutil
import subprocess
import sys
from importlib import import_module

import pytest

import voxmlx
from voxmlx import demo
from voxmlx.__main__ import COMMANDS, main
from voxmlx.cli.arguments import DEFAULT_MODEL, CommandParser


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that `argv`, which is wrong, brings out."""
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("voxmlx: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def parser_of(command: str) -> CommandParser:
    return import_module(COMMANDS[command][0]).make_parser()


def test_a_command_gets_the_arguments_after_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["transcribe", "--demo"]) == 0
    said = demo.SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").split()
    assert capsys.readouterr().out.split() == said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_under_the_name_it_is_called_by(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: voxmlx {command} ")


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("option", ["-v", "--version"])
def test_every_command_prints_the_packages_version(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), option])
    assert capsys.readouterr().out == f"voxmlx {voxmlx.__version__}\n"


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    for command, (_, summary) in COMMANDS.items():
        assert f"{command} " in printed
        assert summary in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_a_shortened_option(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = parser_of(command)
    names = parser.option_names()
    whole = [name for name in names if len(name) > 5]
    assert whole
    for option in whole:
        if option[:-1] not in names:
            with pytest.raises(SystemExit, match="2"):
                parser.parse_args([option[:-1], "1"])
            capsys.readouterr()


def test_wrong_arguments_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "see voxmlx live --help" in refused(["live", "--dev", "x"], capsys)
    assert "did you mean transcribe?" in refused(["transcibe", "a.wav"], capsys)
    assert "'a.wav' is not a command" in refused(["a.wav"], capsys)
    assert "no COMMAND" in refused([], capsys)
    assert "--demo" in refused(["--demo"], capsys)
    assert "'ksh'" in refused(["completion", "ksh"], capsys)


def test_finding_a_command_imports_no_other() -> None:
    code = (
        "import sys; from voxmlx.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "voxmlx.__main__" in loaded
    assert not loaded & {module for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_is_a_script_that_knows_every_option(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        for option in parser_of(command).option_names():
            assert option.lstrip("-") in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_commands_options_and_files(
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "talk.wav").touch()
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_voxmlx\n"
        done = subprocess.run(
            ["bash"],
            input=f'{script}\n{ask}printf "%s\\n" "${{COMPREPLY[@]}}"',
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        return set(done.stdout.split())

    assert completed("voxmlx", "tr") == {"transcribe"}
    assert completed("voxmlx", "live", "--dev") == {"--device"}
    assert completed("voxmlx", "transcribe", "ta") == {"talk.wav"}
    assert completed("voxmlx", "live", "--input", "ta") == {"talk.wav"}


def test_the_environment_names_the_default_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VOXMLX_MODEL", raising=False)
    assert parser_of("transcribe").parse_args(["a"]).model == DEFAULT_MODEL
    monkeypatch.setenv("VOXMLX_MODEL", "")
    assert parser_of("transcribe").parse_args(["a"]).model == DEFAULT_MODEL
    monkeypatch.setenv("VOXMLX_MODEL", "some/model")
    for command in ("live", "serve", "transcribe"):
        assert parser_of(command).parse_args([]).model == "some/model"
        assert parser_of(command).parse_args(["--demo"]).model == demo.NAME
        assert parser_of(command).parse_args(["--model", "x"]).model == "x"
