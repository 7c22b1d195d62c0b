"""The one command: `voxmlx live`, `voxmlx transcribe` and the others."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import any_command

    sys.exit(any_command())


import difflib
from collections.abc import Sequence
from importlib import import_module

from voxmlx.cli.arguments import CommandParser, run_command

__all__ = ["COMMANDS", "main"]

# Where each command's `main` and `make_parser` are, and what it does. A module is
# imported only when its command is asked for.
COMMANDS = {
    "live": ("voxmlx.live.__main__", "show what is said while it is said"),
    "transcribe": ("voxmlx.transcribe", "turn sound files into text or subtitles"),
    "align": ("voxmlx.align", "give the words of a text their times in a sound"),
    "serve": ("voxmlx.serve.__main__", "serve many clients at once"),
    "convert": ("voxmlx.convert.__main__", "make a smaller or faster model"),
    "doctor": ("voxmlx.doctor.__main__", "describe this machine, for a bug report"),
}

_COMPLETION = "completion"
_SHELLS = ("bash", "zsh", "fish", "tcsh")

# Arguments whose name in the help begins so are completed as paths.
_PATHS = ("FILE", "DIR", "SOURCE", "DEST", "AUDIO", "TEXT")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        module, _ = COMMANDS[words[0]]
        return import_module(module).main(words[1:])
    parser = _make_parser()
    if words and not words[0].startswith("-") and words[0] != _COMPLETION:
        parser.error(_unknown(words[0]))
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.error("no COMMAND")
    return run_command(lambda: _print_completion(arguments.shell))


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, [*COMMANDS, _COMPLETION], n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    return f"{word!r} is not a command{advice}"


def _make_parser() -> CommandParser:
    """Return the parser of `voxmlx` with all its commands, their options left out."""
    parser = CommandParser(
        "voxmlx",
        description="Live speech to text with Voxtral Realtime.",
        epilog="`voxmlx COMMAND --help` explains a command.\n\n"
        "exit status: 0 done   1 an error was reported   2 wrong arguments",
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", dest="command", parser_class=CommandParser
    )
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    completion = commands.add_parser(
        _COMPLETION,
        help="print a script by which a shell completes commands and options",
        description="Print a script by which a shell completes commands and options.",
        epilog="examples:\n"
        '  eval "$(voxmlx completion bash)"               in ~/.bashrc\n'
        '  voxmlx completion zsh > "${fpath[1]}/_voxmlx"  once\n'
        "  voxmlx completion fish > ~/.config/fish/completions/voxmlx.fish",
    )
    completion.add_argument(
        "shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS)
    )
    return parser


def _print_completion(shell: str) -> int:
    """Print the script for `shell`, made from the parsers of all commands."""
    # Local: only this needs it.
    import shtab

    parser = CommandParser("voxmlx")
    commands = parser.add_subparsers(parser_class=CommandParser)
    for name, (module, summary) in COMMANDS.items():
        one = import_module(module).make_parser()
        for action in one._actions:
            if action.choices is None and _names_a_path(action.metavar):
                action.complete = shtab.FILE  # pyright: ignore -- shtab reads it
        commands.add_parser(
            name,
            parents=[one],
            help=summary,
            add_help=False,
            conflict_handler="resolve",
        )
    completion = commands.add_parser(_COMPLETION)
    completion.add_argument("shell", choices=_SHELLS)
    sys.stdout.write(shtab.complete(parser, shell))
    return 0


def _names_a_path(metavar: str | tuple[str, ...] | None) -> bool:
    return isinstance(metavar, str) and metavar.startswith(_PATHS)
