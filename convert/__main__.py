"""python -m convert: a checkpoint in any layout -> ours, quantized, verified."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import start

    sys.exit(start(f"{__package__}.__main__"))


import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import voxmlx
from voxmlx import load
from voxmlx.cli.arguments import CommandParser, run_command
from voxmlx.errors import CheckpointError
from voxmlx.hub import locate
from voxmlx.layouts import ModelFiles, open_model
from voxmlx.layouts.recipes import DEFAULT_RECIPE, RECIPES, DtypeName, Recipe
from voxmlx.text.tokenizer import Tokenizer

from . import quality
from .bars import progress, steps
from .budget import LEAST, budget_recipe, measured, n_bytes_of, units
from .calibration import (
    Calibration,
    OnHeard,
    calibration_path,
    read_calibration,
    warn_of_little_sound,
)
from .disk import amount
from .distillation import check_mlx_lm
from .dwq import Dwq, learn
from .gptq import Gptq, Search
from .manifest import MANIFEST_NAME, check
from .output import Output
from .peer_layouts import LAYOUT_NAMES, LayoutName, why_not_awni
from .plan import SHARD_BYTES, Plan, make_plan
from .rounding import (
    CALIBRATED,
    DEFAULT_ROUNDING,
    ROUNDINGS,
    Nearest,
    Rounder,
    RoundingName,
)
from .upload import check_token, upload
from .verify import roomy_dtype, verify

__all__ = ["convert", "main", "make_parser"]

_DTYPES = ("float16", "bfloat16", "float32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.check is not None:
        if options.source is not None:
            parser.error("--check DEST takes no SOURCE; give one or the other")
        if (reason := _ignored_by_check(parser, options)) is not None:
            parser.error(reason)
        return run_command(lambda: _check(options.check))
    if options.source is None or options.destination is None:
        parser.error("SOURCE and DEST are required; or use --check DEST")
    if options.budget is not None and options.recipe is not None:
        parser.error(
            "--budget chooses the bits, and so does --recipe; give one of them"
        )
    options.recipe = options.recipe or DEFAULT_RECIPE
    if options.recipe not in RECIPES:
        parser.error(f"no recipe {options.recipe!r}; use one of {', '.join(RECIPES)}")
    fixed = RECIPES[options.recipe].dtype
    if fixed is not None and options.dtype not in (None, fixed):
        parser.error(
            f"recipe {options.recipe} stores {fixed}, --dtype says {options.dtype}; "
            "leave one of them out"
        )
    if options.reference_dtype is not None and not options.verify:
        parser.error(
            "--reference-dtype is for --verify; give it sounds, or leave it out"
        )
    for reason in (_wrong_rounding(options), _wrong_layout(options)):
        if reason is not None:
            parser.error(reason)
    return run_command(lambda: _run(options))


def _ignored_by_check(parser: CommandParser, options: argparse.Namespace) -> str | None:
    """Name an option that --check has no use for; None: there is none."""
    for name, value in vars(options).items():
        if name != "check" and value != parser.get_default(name):
            return f"--check takes nothing else; leave --{name.replace('_', '-')} out"
    return None


def _wrong_rounding(options: argparse.Namespace) -> str | None:
    """What of --rounding and --calibrate does not fit; None: all fits."""
    recipe = RECIPES[options.recipe]
    if options.rounding is not None and not recipe.is_rounded:
        rounds = any(rule.precision is not None for rule in recipe.rules)
        why = "has one way to round only" if rounds else "rounds nothing"
        return f"recipe {recipe.name} {why}; leave --rounding out"
    is_calibrated = options.rounding in CALIBRATED
    if is_calibrated and not options.calibrate:
        return (
            f"--rounding {options.rounding} needs sound to listen to; add --calibrate "
            "FOLDER with five minutes of speech or more, or --calibrate generated"
        )
    if options.budget is not None and not options.calibrate:
        return (
            "--budget needs sound to measure with; add --calibrate FOLDER with speech "
            "of the kind that the model will hear"
        )
    if options.calibrate and not is_calibrated and options.budget is None:
        return (
            "--calibrate is for --rounding gptq or dwq and --budget; give one of them "
            "too"
        )
    return None


def _wrong_layout(options: argparse.Namespace) -> str | None:
    """Why the recipe does not fit --layout; None: it does."""
    if options.layout != "awni":
        return None
    if options.budget is not None:
        return (
            "awni/voxmlx reads one number of bits for all matrices, --budget gives "
            "several; use --recipe q4, or --layout mlx-audio"
        )
    found = [rule.precision for rule in RECIPES[options.recipe].rules]
    return why_not_awni([p for p in found if p is not None])


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx convert`."""
    parser = CommandParser(
        "voxmlx convert",
        description="Convert Voxtral Realtime weights: any layout in, ours out, "
        "quantized by a recipe. An interrupted conversion goes on where it was.",
        epilog="recipes:\n"
        + "\n".join(f"  {r.name:10} {r.summary}" for r in RECIPES.values()),
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="model directory or Hub id in Mistral's, transformers', mlx-audio's, "
        "awni/voxmlx's or our layout, quantized or not",
    )
    parser.add_argument(
        "destination", nargs="?", type=_path, metavar="DEST", help="directory to make"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help=f"default: {DEFAULT_RECIPE}; all stand below"
    )
    parser.add_argument(
        "--budget",
        type=_size,
        metavar="SIZE",
        help="instead of a recipe: the bits of each matrix, by what it does to the "
        "words, so that the weights take at most SIZE, such as 2.2GB; needs --calibrate",
    )
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        help="how weights are rounded: nearest, as MLX does; search, which looks for "
        "the scales of the least error and needs no data; gptq, which needs "
        "--calibrate; dwq, which does gptq and then learns the scales, and needs "
        f"mlx-lm too (default: {DEFAULT_ROUNDING})",
    )
    parser.add_argument(
        "--calibrate",
        nargs="+",
        type=calibration_path,
        default=[],
        metavar="AUDIO",
        help="sounds, or folders of them, that gptq, dwq and --budget listen to; demo "
        "is the demo model's, generated is made here for who has none",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUT_NAMES,
        default="voxmlx",
        help="whose names the result has: another program's, to use the weights there "
        "(awni: awni/voxmlx, one number of bits only); voxmlx reads all of them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=_DTYPES,
        help="type of scales and of what is not quantized (default: float16 where the "
        "source's is, float32 so too for --recipe keep, else bfloat16)",
    )
    parser.add_argument(
        "--shard-size",
        type=_size,
        default=SHARD_BYTES,
        metavar="SIZE",
        help="of each file of weights, such as 500MB; an interruption loses what is done "
        "of one file (default: 1 GiB)",
    )
    parser.add_argument(
        "--verify",
        nargs="+",
        type=Path,
        default=[],
        metavar="AUDIO",
        help="measure the result against the source on these sounds; a .txt beside a "
        "sound is its transcript",
    )
    parser.add_argument(
        "--reference-dtype",
        choices=_DTYPES,
        help="the source's type in --verify (default: float32 where memory allows, "
        "else bfloat16)",
    )
    parser.add_argument("--upload", metavar="REPO", help="then upload to this Hub id")
    parser.add_argument(
        "--check", type=_path, metavar="DEST", help="verify the checksums of a result"
    )
    return parser


def _size(text: str) -> int:
    try:
        size = n_bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is nothing; write it like 2.2GB")
    return size


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; name a directory")
    # Unlike Path's, this leaves the name of an unknown user as it is.
    return Path(os.path.expanduser(text))


def _check(directory: Path) -> int:
    n = check(directory)
    print(f"{directory}: {n} files agree with {MANIFEST_NAME}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.upload is not None:
        check_token()
    sounds = quality.read_sounds(options.verify)
    calibration = read_calibration(options.calibrate)
    convert(
        options.source,
        options.destination,
        recipe=options.recipe,
        dtype=options.dtype,
        sounds=sounds,
        reference_dtype=options.reference_dtype,
        rounding=options.rounding or DEFAULT_ROUNDING,
        calibration=calibration,
        layout=options.layout,
        budget=options.budget,
        shard_bytes=options.shard_size,
    )
    if options.rounding in CALIBRATED:
        warn_of_little_sound(options.rounding, calibration)
    if options.upload is not None:
        print(upload(options.destination, options.upload))
    return 0


def convert(
    source: str,
    destination: Path,
    *,
    recipe: str = DEFAULT_RECIPE,
    dtype: DtypeName | None = None,
    sounds: Sequence[quality.Sound] = (),
    reference_dtype: DtypeName | None = None,
    rounding: RoundingName = DEFAULT_ROUNDING,
    calibration: Sequence[quality.Sound] = (),
    layout: LayoutName = "voxmlx",
    budget: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Make `destination` from `source`, whole or not at all.

    A `budget` in bytes takes the place of the recipe; it needs `calibration`. Raises
    VoxmlxError in one line: CheckpointError for the source, OutputError for the
    destination and for what is not installed.
    """
    if rounding == "dwq":
        check_mlx_lm()
    files = open_model(locate(source))
    # Now rather than after an hour: the result is useless without it.
    Tokenizer.from_file(files.tokenizer_path, files.config.decoder.vocab_size)
    chosen = RECIPES[recipe]
    is_local = os.path.isdir(os.path.expanduser(source))
    name = files.directory.name if is_local else source

    def planned(recipe: Recipe) -> Plan:
        return make_plan(
            files,
            recipe,
            recipe.dtype or dtype or _own_dtype(files, recipe),
            name,
            voxmlx.__version__,
            shard_bytes,
            rounding,
            calibration,
            layout,
        )

    if budget is not None:
        least = planned(LEAST)
        early = Output(destination, least)
        if not early.partial.exists():
            early.check_destination()  # before minutes of measuring
        chosen = _by_budget(least, calibration, budget)
    plan = planned(chosen)
    output = Output(destination, plan)
    if output.finish_interrupted(lambda made: quality.is_certified(made, sounds)):
        return plan
    with output.opened():
        _write_weights(output)
        output.write_description()
        if sounds:
            result = verify(plan, output.model, sounds, reference_dtype)
            output.write_description(result)
        output.publish()
    print(
        f"{destination}: {amount(plan.n_bytes)}, {plan.bits_per_weight:.3f} bits "
        f"per weight, recipe {plan.recipe.name}"
    )
    return plan


def _write_weights(output: Output) -> None:
    plan = output.plan
    learned = None
    if plan.rounding == "dwq" and output.n_missing_bytes:
        learned = _learned(output)
    with progress(plan) as (advance, on_heard):
        output.write_weights(learned or _rounder(plan, on_heard), advance)


def _learned(output: Output) -> Dwq:
    """Round the model by GPTQ, and learn its scales, unless an earlier run has."""
    by_gptq = Output(output.rounded, replace(output.plan, rounding="gptq"))
    is_whole = by_gptq.finish_interrupted(lambda _: True)
    if not is_whole and not output.rounded.is_dir():
        with by_gptq.opened():
            _write_weights(by_gptq)
            by_gptq.write_description()
            by_gptq.publish()
    if not output.learned.exists():
        with steps("learning scales: step") as on_step:
            learn(output.plan, output.rounded, output.learned, on_step)
    return Dwq(output.rounded, output.learned)


def _by_budget(
    least: Plan, calibration: Sequence[quality.Sound], budget: int
) -> Recipe:
    """Measure each matrix, and spend the budget where it does most."""
    if least.files.precisions:
        raise CheckpointError(
            f"{least.files.directory} is quantized already; --budget measures what bits "
            "cost, so give it the model in 16 bits"
        )
    wanted = units(least.files.modules.values())
    budget_recipe(wanted, {unit.path: 0.0 for unit in wanted}, budget, least.n_bytes)
    checkpoint = load(least.files.directory, roomy_dtype(least), embedding_bits=16)
    with steps("measuring matrix") as on_measured:
        costs = measured(checkpoint, wanted, calibration, on_measured)
    return budget_recipe(wanted, costs, budget, least.n_bytes)


def _rounder(plan: Plan, on_heard: OnHeard) -> Rounder:
    if plan.rounding == "gptq":
        calibration = Calibration(plan.files, plan.calibration, on_heard)
        return Gptq(calibration, plan.dtype)
    if plan.rounding == "search":
        return Search(plan.dtype)
    return Nearest(plan.dtype)


def _own_dtype(files: ModelFiles, recipe: Recipe) -> DtypeName:
    """float16 where most of the source is: its scales then stay what they are.

    float32 so too where the recipe keeps the source's bits, else bfloat16.
    """
    n_bytes = {"F16": 0, "BF16": 0, "F32": 0, "F64": 0}
    for tensor in files.tensors.values():
        if tensor.dtype in n_bytes:
            n_bytes[tensor.dtype] += tensor.n_bytes
    half = sum(n_bytes.values()) / 2
    if n_bytes["F16"] > half:
        return "float16"
    is_wide = n_bytes["F32"] + n_bytes["F64"] > half
    return "float32" if is_wide and recipe.is_source_kept else "bfloat16"
