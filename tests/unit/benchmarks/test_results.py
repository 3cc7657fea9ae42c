"""Where results are written, and the pages that are made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import machine, page
from benchmarks.page import TITLES

EARLY = "amd-epyc-2core-2026-11"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("AMD EPYC", "amd-epyc"),
        ("AMD EPYC 7763 64-Core Processor", "amd-epyc-7763"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon"),
        ("NVIDIA H200", "nvidia-h200"),
        ("", "unknown"),
    ],
)
def test_a_processor_is_a_part_of_a_files_name(name: str, wanted: str) -> None:
    assert machine.tag(name) == wanted


def test_two_machines_with_as_many_cores_have_files_of_their_own() -> None:
    facts = {"accelerator": None, "processor": "AMD EPYC", "cores": 2}
    places = {
        machine.place(one)
        for one in (
            facts,
            facts | {"processor": "Intel Xeon"},
            facts | {"accelerator": "NVIDIA H200"},
            facts | {"cores": 4},
        )
    }
    kinds = [{"family": "25", "model": "1", "bf16": []}, {"family": "25", "model": "17"}]
    kinds.append(kinds[-1] | {"bf16": ["avx512_bf16"]})
    places |= {machine.place(facts | kind) for kind in kinds}
    assert len(places) == 7, "a Zen 3 and a Zen 4 may both be called AMD EPYC"
    assert all(one.startswith(("amd-epyc-", "intel-xeon-", "nvidia-h200-")) for one in places)


def test_a_result_says_how_and_on_what_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["round_trip", "--rounds", "3"])
    path = machine.write_result("round_trip", "All took turns.", {"rows": []})
    (place,) = page.places(tmp_path)
    assert path.name == f"round_trip-{place}.json"
    content = json.loads(path.read_text("utf-8"))
    assert content["command"] == "python -m benchmarks.round_trip --rounds 3"
    assert content["machine"]["cores"]
    assert "All took turns." in page.page(place, tmp_path)


def test_a_small_try_does_not_take_the_place_of_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)

    def written(number: int, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["step", *arguments])
        path = machine.write_result("step", "How.", {"number": number})
        return str(path.parent.relative_to(tmp_path))

    assert written(1, "--rounds", "1") == "."
    assert written(2) == "."
    assert written(3, "--only", "dogo") == "tries"
    assert written(4, "--full", "--rounds", "3") == "."
    assert written(5) == "tries"
    (kept,) = tmp_path.glob("*.json")
    content = json.loads(kept.read_text("utf-8"))
    assert content["number"] == 4 and content["date"] and "commit" in content


def test_each_result_that_is_kept_has_its_place_on_a_page() -> None:
    assert EARLY in page.places(machine.RESULTS)
    for path in machine.RESULTS.glob("*.json"):
        benchmark, _, place = path.stem.partition("-")
        made = page.page(place, machine.RESULTS)
        assert TITLES[benchmark][0] in made
        assert json.loads(path.read_text("utf-8"))["machine"]["processor"] in made


def test_the_share_of_the_exchange_is_on_the_page() -> None:
    made = page.page(EARLY, machine.RESULTS)
    assert "| exchange_ms | exchange_share |" in made and "| 0.017 |" in made


def test_an_early_result_is_said_to_be_one_pass() -> None:
    made = page.page(EARLY, machine.RESULTS)
    assert "One pass, one combination after the other" in made
    assert "Contestants took turns" not in made


SPREAD = {"median": 2.0, "min": 1.5, "max": 3.25}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "step",
            {
                "batch_size": 256,
                "threads": 1,
                "networks": {
                    "wide": {
                        "seconds": {"dogo": {"cpu": SPREAD, "wall": SPREAD}},
                        "ratios": {"published / dogo": SPREAD},
                    }
                },
            },
        ),
        ("coordinator", {"rows": [{"kind": "echo", "per_cpu_s": SPREAD}], "long_run": None}),
        (
            "round_trip",
            {
                "rows": [{"batch_size": 256, "median_ms": SPREAD}],
                "compute_ms": 250.0,
                "step_rows": [{"peers": 8, "step_ms": SPREAD}],
                "left_out": {"B 4096": "too large"},
            },
        ),
        ("far_link", {"rows": [{"peers": "pair", "steps_per_s": SPREAD}]}),
    ],
)
def test_a_median_stands_beside_its_least_and_most(name: str, content: dict[str, object]) -> None:
    facts = {"processor": "P", "cores": 2, "accelerator": None, "python": "3", "torch": "2"}
    made = page.section(name, {"machine": facts, "how": "So and so.", **content})
    assert "2 (1.5 to 3.25)" in made
    assert "\nSo and so.\n" in made
