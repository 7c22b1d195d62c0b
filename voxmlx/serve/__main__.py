"""A server that many clients use at once: `python -m voxmlx.serve`."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import serve

    sys.exit(serve())


import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from voxmlx.cli.arguments import (
    KEY_VARIABLE,
    CommandParser,
    add_model_arguments,
    add_silence_argument,
    check_delay,
    chosen_delay_ms,
    load_model,
    run_command,
)
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import ServerError
from voxmlx.serve.model_names import read_model_name
from voxmlx.web.access import (
    LOOPBACK,
    Access,
    is_loopback,
    read_host,
    read_key,
    read_origin,
)

__all__ = ["main", "make_parser"]

_EXAMPLES = """\
examples:
  voxmlx serve --demo                          http://127.0.0.1:8000, the tiny model
  voxmlx serve --max-sessions 4 --kv-bits 8
  VOXMLX_API_KEY=secret voxmlx serve --host 0.0.0.0
  voxmlx serve --allow-origin https://notes.example
  voxmlx serve --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem
  voxmlx serve --wyoming-port 10300 --wyoming-host 0.0.0.0    for Home Assistant

Ctrl-C, or SIGTERM, once lets clients hear their last words; twice stops at once.

exit status:
  0 ended   1 an error was reported   2 wrong arguments
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return run_command(lambda: _run(_parse_arguments(argv)))


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx serve`."""
    parser = CommandParser(
        "voxmlx serve",
        description="Serve Voxtral Realtime to many clients at once: a web page, the "
        "realtime protocols of vLLM, OpenAI, Mistral and Wyoming, and OpenAI's "
        "transcriptions.",
        epilog=_EXAMPLES,
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on: 0.0.0.0 for clients on other machines, the default "
        "for those on this one (default: %(default)s)",
    )
    server.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=8000,
        help="port to listen on, 0 for any that is free (default: %(default)s)",
    )
    server.add_argument(
        "--wyoming-port",
        metavar="N",
        type=_port,
        help="speak Wyoming too, the protocol of Home Assistant, on that port (10300 is "
        "usual); 0 is any that is free",
    )
    server.add_argument(
        "--wyoming-host",
        metavar="HOST",
        help="address for Wyoming. The protocol has no keys: with 0.0.0.0, whoever "
        "reaches this machine can use it (default: 127.0.0.1)",
    )
    server.add_argument(
        "--max-sessions",
        metavar="N",
        type=_at_least_one,
        default=8,
        help="clients served at once; more are refused (default: %(default)s)",
    )
    server.add_argument(
        "--served-model-name",
        metavar="NAME",
        action="append",
        type=_checked(read_model_name),
        help="name of the model for clients, as with vLLM; may be given several times, "
        "the first one is shown (default: what --model says)",
    )
    server.add_argument(
        "--api-key",
        metavar="KEY",
        action="append",
        type=_checked(read_key),
        help="what clients must send; may be given several times. The environment's "
        f"{KEY_VARIABLE} is not shown to other users of this machine",
    )
    server.add_argument(
        "--allow-origin",
        metavar="URL",
        action="append",
        type=_checked(read_origin),
        default=[],
        help="let web pages from there use the server, as in https://notes.example; "
        "may be given several times, * is any page",
    )
    server.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        type=_checked(read_host),
        default=[],
        help="answer to this name too, of a reverse proxy or a private network; may be "
        "given several times, * is any name. Always right are localhost and, with "
        "--host, addresses and this machine's own names",
    )
    server.add_argument(
        "--ssl-certfile",
        metavar="FILE",
        type=Path,
        help="certificate chain (PEM) to serve https and wss; browsers of other "
        "machines give their microphone to https only",
    )
    server.add_argument(
        "--ssl-keyfile",
        metavar="FILE",
        type=Path,
        help="private key (PEM) of the certificate, where it is not in the same file",
    )
    server.add_argument(
        "--max-body-mb",
        metavar="N",
        type=_at_least_one,
        default=512,
        help="largest sound file that may be sent (default: %(default)s)",
    )
    server.add_argument(
        "--max-uploads",
        metavar="N",
        type=_at_least_one,
        default=4,
        help="sound files transcribed at once, of all clients together; they take "
        "places of --max-sessions (default: %(default)s)",
    )
    server.add_argument(
        "--max-uploads-mb",
        metavar="N",
        type=_at_least_one,
        default=2048,
        help="size of all sound files at once, on the disk (default: %(default)s)",
    )
    server.add_argument(
        "--max-connections",
        metavar="N",
        type=_at_least_one,
        default=512,
        help="connections at once, idle ones too (default: %(default)s)",
    )
    server.add_argument(
        "--idle",
        metavar="S",
        type=_at_least_one,
        default=300,
        help="seconds without a message after which a client is let go "
        "(default: %(default)s)",
    )
    server.add_argument(
        "--no-guards",
        action="store_true",
        help="leave the model alone when it falls silent over speech or into a loop",
    )
    add_model_arguments(parser)
    add_silence_argument(parser)
    return parser


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.ssl_keyfile and not arguments.ssl_certfile:
        parser.error("--ssl-keyfile needs --ssl-certfile, its certificate")
    if arguments.wyoming_host and arguments.wyoming_port is None:
        parser.error("--wyoming-host needs --wyoming-port, the port to listen on")
    arguments.api_key = [*(arguments.api_key or []), *_environment_keys(parser)]
    return arguments


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number to 65535")
    return number


def _checked(read: Callable[[str], str]) -> Callable[[str], str]:
    """What `read` makes of an argument; its ValueError is an error of arguments."""

    def convert(text: str) -> str:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _environment_keys(parser: argparse.ArgumentParser) -> list[str]:
    """The environment's key, if there is one; one that no client can send is refused."""
    text = os.environ.get(KEY_VARIABLE)
    if text is None:
        return []
    try:
        return [read_key(text)]
    except ValueError as error:
        parser.error(f"{KEY_VARIABLE}: {error}; unset it to ask for no key")


def _at_least_one(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _run(arguments: argparse.Namespace) -> int:
    check_delay(arguments)
    try:
        # Local imports: what only this command needs is an extra of the package.
        from voxmlx.serve.app import Service
        from voxmlx.serve.metrics import Metrics
        from voxmlx.serve.scheduler import Scheduler
        from voxmlx.serve.server import Server, announce, tls_context
        from voxmlx.serve.stream_options import StreamOptions
        from voxmlx.web.limits import Limits
        from voxmlx.web.listening import listen
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("voxmlx"):
            raise
        raise ServerError(
            f"the server needs {error.name}, which is not installed; install it with "
            "pip install 'voxmlx-realtime[serve]'"
        ) from None
    keys: list[str] = arguments.api_key
    access = Access.for_host(
        arguments.host, keys, arguments.allow_origin, arguments.allow_host
    )
    tls = None
    if arguments.ssl_certfile is not None:
        tls = tls_context(arguments.ssl_certfile, arguments.ssl_keyfile)
    limits = Limits(
        max_body_bytes=arguments.max_body_mb << 20,
        max_upload_bytes=arguments.max_uploads_mb << 20,
        max_connections=arguments.max_connections,
        idle_s=float(arguments.idle),
    )
    # A port that is taken should not be found out after the model has loaded.
    with ExitStack() as stack:
        sock = stack.enter_context(listen(arguments.host, arguments.port))
        wyoming = None
        if arguments.wyoming_port is not None:
            host = arguments.wyoming_host or LOOPBACK
            wyoming = listen(
                host,
                arguments.wyoming_port,
                host_option="--wyoming-host",
                port_option="--wyoming-port",
            )
            stack.enter_context(wyoming)
            if not is_loopback(host):
                sys.stderr.write(
                    "voxmlx: anybody who reaches this machine can use Wyoming, which "
                    "has no keys\n"
                )
        if access.has_addresses and not keys:
            sys.stderr.write(
                "voxmlx: anybody who reaches this machine can use the server; "
                f"--api-key or {KEY_VARIABLE} asks for a key\n"
            )
        checkpoint = load_model(arguments)
        # Clients name hot words: what encodes them takes a second to import, which
        # the streams of others should not wait for.
        checkpoint.tokenizer.encode("")
        metrics = Metrics()
        scheduler = Scheduler(
            checkpoint,
            max_sessions=arguments.max_sessions,
            max_files=arguments.max_uploads,
            delay_ms=chosen_delay_ms(arguments, checkpoint),
            guards=() if arguments.no_guards else tuple(GUARDS),
            kv_bits=arguments.kv_bits,
            silence_block=arguments.silence_block,
            metrics=metrics,
        )
        name, *aliases = arguments.served_model_name or [checkpoint.name]
        service = Service(
            scheduler,
            metrics,
            model=name,
            aliases=aliases,
            options=StreamOptions(chosen_delay_ms(arguments, checkpoint)),
            left_pad_tokens=checkpoint.model.left_pad_tokens,
            access=access,
            limits=limits,
        )
        scheduler.start()
        try:
            is_tls = tls is not None
            announce(sock, name, is_tls=is_tls, wyoming=wyoming)
            Server(service, limits, tls, wyoming).run([sock])
        finally:
            scheduler.stop()
    return 0
