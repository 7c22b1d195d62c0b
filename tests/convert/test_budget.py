"""A budget is kept, and its bytes go where they do most."""

import json
from pathlib import Path

import numpy as np
import pytest

from convert.__main__ import convert, main
from convert.budget import (
    BUDGET_BITS,
    LEAST,
    Unit,
    allocated,
    measured,
    n_bytes_of,
    units,
)
from convert.plan import make_plan
from convert.quality import Sound
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.errors import OutputError
from voxmlx.layouts import open_model

SOUND = Sound("s", speech_like(16_000), None)


def test_a_matrix_that_matters_more_gets_more_bits() -> None:
    wanted = [Unit(name, 8000) for name in ("a", "b", "c")]
    bits = allocated(wanted, {"a": 1e-2, "b": 1e-4, "c": 1e-4}, 5000)
    assert bits["a"] > bits["b"] >= bits["c"] >= BUDGET_BITS[0]
    assert sum(8000 * (n - 3) / 8 for n in bits.values()) <= 5000


def test_a_large_matrix_gives_way_to_a_small_one_that_matters_as_much() -> None:
    wanted = [Unit("small", 1000), Unit("large", 100_000)]
    bits = allocated(wanted, {"small": 1e-3, "large": 1e-3}, 13_250)
    assert bits == {"small": 8, "large": 4}


def test_without_a_spare_byte_all_have_the_fewest_bits_and_with_enough_the_most() -> (
    None
):
    wanted = [Unit("a", 100), Unit("b", 900)]
    costs = {"a": 1.0, "b": 2.0}
    assert set(allocated(wanted, costs, 0).values()) == {BUDGET_BITS[0]}
    assert set(allocated(wanted, costs, 625).values()) == {BUDGET_BITS[-1]}


def test_every_unit_is_a_product_of_the_network_and_is_put_back(source: Path) -> None:
    checkpoint = load(source, "float32")
    wanted = units(open_model(source).modules.values())
    modules = dict(checkpoint.model.named_modules())
    before = {unit.path: np.array(modules[unit.path].weight) for unit in wanted}
    costs = measured(checkpoint, wanted, [SOUND])
    assert all(cost > 0 for cost in costs.values())
    assert len(costs) == len(wanted) == 2 * 8 + 2 + 1
    for unit in wanted:
        assert before[unit.path].size == unit.n_weights
        after = np.array(modules[unit.path].weight)
        np.testing.assert_array_equal(after, before[unit.path], err_msg=unit.path)


def test_the_weights_take_the_budget_and_no_more(source: Path, tmp_path: Path) -> None:
    least = make_plan(open_model(source), LEAST, "bfloat16", "x", "1").n_bytes
    budget = int(1.3 * least)
    plan = convert(str(source), tmp_path / "ours", budget=budget, calibration=[SOUND])
    assert least < 0.9 * budget < plan.n_bytes <= budget
    assert sum(p.stat().st_size for p in (tmp_path / "ours").glob("*.safetensors")) == (
        plan.n_bytes
    )
    assert len(set(plan.precisions.values())) > 1
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config["recipe"] == "budget"
    load(tmp_path / "ours")


def test_a_budget_that_nothing_fits_is_refused_before_anything_is_measured(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="3 bits everywhere take"):
        convert(str(source), tmp_path / "b", budget=20_000, calibration=[SOUND])
    assert list(tmp_path.iterdir()) == []


def test_a_destination_that_exists_is_refused_before_anything_is_measured(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    # Such a budget is refused as well, but later.
    with pytest.raises(OutputError, match="exists; remove it"):
        convert(str(source), tmp_path / "b", budget=20_000, calibration=[SOUND])


@pytest.mark.parametrize(
    ("text", "expected"), [("2.2GB", 2_200_000_000), ("900 mb", 900_000_000)]
)
def test_a_size_has_a_number_and_a_unit(text: str, expected: int) -> None:
    assert n_bytes_of(text) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--budget", "2.2"], "write it like 2.2GB"),
        (["--budget=-1GB"], "write it like 2.2GB"),
        (["--budget", "9" * 400 + "GB"], "is no size"),
        (["--budget", "2GB"], "add --calibrate FOLDER"),
        (["--budget", "2GB", "--recipe", "q4"], "give one of them"),
        (
            ["--budget", "2GB", "--calibrate", "demo", "--layout", "awni"],
            "one number of bits",
        ),
    ],
)
def test_what_does_not_fit_a_budget_is_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["a", "b", *arguments])
    assert raised.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert expected in text
