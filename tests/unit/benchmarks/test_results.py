"""Where results are written, and the pages that are made of them."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import coordinator, coordinator_memory, machine, page, several
from benchmarks.page import TITLES
from benchmarks.turns import Took
from tests.support.command_line import REPOSITORY

EARLY = "amd-epyc-2core-2026-11"
ROWS = [{"n": 1}]


def result_of(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> machine.Result:
    """Returns the result of a benchmark that has a few arguments."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--images", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    named_by, aside = ["images", "full"], ["folder"]
    return machine.Result(name, "All took turns.", parser, asked, named_by=named_by, aside=aside)


def written(
    monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str, rows: object = ROWS
) -> Path:
    """Writes such a result, and returns where."""
    result = result_of(monkeypatch, name, *arguments)
    result.found |= {"rows": rows, "networks": {}}
    path = result.write()
    assert path is not None
    return path


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
    path = written(monkeypatch, "round_trip", "--rounds", "3")
    (place,) = page.places(tmp_path)
    assert path.name == f"round_trip-{place}.json"
    content = json.loads(path.read_text("utf-8"))
    assert content["command"] == "python -m benchmarks.round_trip --rounds 3"
    assert content["machine"]["cores"]
    made = page.page(place, tmp_path)
    assert "All took turns." in made and "\nSettings: rounds 3, peers 2 8.\n" in made
    assert "\n    python -m benchmarks.round_trip --rounds 3\n" in made


def test_a_small_try_does_not_take_the_place_of_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)

    def folder(number: int, *arguments: str) -> str:
        path = written(monkeypatch, "step", *arguments, rows=[{"number": number}])
        return str(path.parent.relative_to(tmp_path))

    assert folder(1, "--rounds", "1") == "."
    assert folder(2) == "."
    assert folder(3, "--rounds", "1") == "tries"
    assert folder(4, "--rounds", "2") == ".", "the usual number, said"
    (kept,) = tmp_path.glob("*.json")
    content = json.loads(kept.read_text("utf-8"))
    assert content["rows"] == [{"number": 4}] and content["date"] and "commit" in content
    early = {"command": "python -m benchmarks.step --rounds 1", "rows": []}
    kept.write_text(json.dumps(early), "utf-8")
    assert folder(5, "--rounds", "3") == ".", "an early result is judged by its command"
    kept.write_text(json.dumps({"rows": []}), "utf-8")
    assert folder(6, "--rounds", "3") == "tries"


def test_what_is_measured_with_arguments_of_the_documentation_is_kept_beside_the_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    for arguments in ([], ["--images", "100000", "--folder", "disk"], ["--full"]):
        written(monkeypatch, "cold_folder", *arguments, rows=[{"asked": " ".join(arguments)}])
    (place,) = page.places(tmp_path)
    names = {path.name for path in tmp_path.glob("*.json")}
    parts = ("", ".images_100000", ".full")
    assert names == {f"cold_folder{what}-{place}.json" for what in parts}
    assert not (tmp_path / "tries").exists()
    made = page.page(place, tmp_path)
    assert made.count(f"## {TITLES['cold_folder'][0]}") == 3
    assert "| --images 100000 --folder disk |" in made
    few = written(monkeypatch, "cold_folder", "--images", "100000", "--rounds", "1")
    assert few.parent.name == "tries"


def test_a_part_that_fails_is_named_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    with (
        pytest.raises(SystemExit, match="step: not all was measured; failed: large"),
        result_of(monkeypatch, "step") as result,
    ):
        result.found["rows"] = ROWS
        with result.going_on("large"):
            raise MemoryError("no room")
        result.found["networks"] = {}
    (kept,) = tmp_path.glob("*.json")
    content = json.loads(kept.read_text("utf-8"))
    assert content["rows"] == ROWS and content["failed"] == {"large": "MemoryError: no room"}
    (place,) = page.places(tmp_path)
    assert "NOT ALL WAS MEASURED" in (made := page.page(place, tmp_path))
    assert "- large: MemoryError: no room" in made
    assert written(monkeypatch, "step") == kept, "a whole run takes its place"
    with pytest.raises(SystemExit), result_of(monkeypatch, "step") as result:
        result.found["rows"] = [{"n": 2}]
        result.failed["large"] = "MemoryError: no room"
    assert json.loads(kept.read_text("utf-8"))["rows"] == ROWS, "but it not that of a whole run"
    assert (tmp_path / "tries" / kept.name).is_file()


def test_what_was_found_before_an_error_is_written_and_of_nothing_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    for rows in ([], ROWS):
        with pytest.raises(KeyboardInterrupt), result_of(monkeypatch, "step") as result:
            result.found["rows"] = rows
            raise KeyboardInterrupt
        assert len(list(tmp_path.glob("*.json"))) == bool(rows)


def test_the_rows_of_a_coordinator_are_written_before_its_long_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    seen = []

    def long_run(batch_size: int, steps: int) -> dict[str, object]:
        (kept,) = tmp_path.glob("*.json")
        content = json.loads(kept.read_text("utf-8"))
        seen.append((len(content["rows"]), content["failed"]))
        raise RuntimeError("a peer was lost")

    monkeypatch.setattr(coordinator_memory, "measure", long_run)
    monkeypatch.setattr(coordinator, "contestants", lambda *given: {"copy": lambda: Took(1.0, 1.0)})
    monkeypatch.setattr(coordinator, "PROCESSES", 0)
    monkeypatch.setattr("sys.argv", ["coordinator"])
    with pytest.raises(SystemExit, match="failed: the long run"):
        coordinator.main()
    assert seen == [(6, {"the long run": "not measured yet"})]
    (kept,) = tmp_path.glob("*.json")
    content = json.loads(kept.read_text("utf-8"))
    assert content["failed"] == {"the long run": "RuntimeError: a peer was lost"}


def test_results_are_no_change_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    kept, code = tmp_path / "benchmarks" / "results" / "step.json", tmp_path / "code.py"
    kept.parent.mkdir(parents=True)
    for path in (kept, code):
        path.write_text("before")
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    assert machine._commit() is None, "no checkout yet"
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = machine._commit()
    assert clean is not None and len(clean) == 12
    kept.write_text("after")
    assert machine._commit() == clean
    code.write_text("after")
    assert machine._commit() == f"{clean}+"


def test_each_benchmark_is_run_and_those_that_fail_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert several.failures(["relay", "absent --full", "grid"]) == ["absent --full"]
    asked = []

    def failing(commands: Sequence[str]) -> list[str]:
        asked.extend(commands)
        return ["step"]

    monkeypatch.setattr(several, "failures", failing)
    with pytest.raises(SystemExit, match="see above: step"):
        several.main(["step", "far_link --full"])
    assert asked == ["step", "far_link --full", "page"]


def test_each_that_the_makefile_names_has_its_place_on_a_page() -> None:
    text = (REPOSITORY / "Makefile").read_text("utf-8").replace("\\\n", " ").replace("$(ARGS)", "")
    lines = re.findall(r"-m benchmarks\.several (.+)", text)
    names = [shlex.split(one)[0] for line in lines for one in shlex.split(line)]
    assert len(lines) == 2 and len(names) > 9
    assert set(names) <= set(TITLES)


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
    assert "Settings: peers=pair, batch_size=256, " in made


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
