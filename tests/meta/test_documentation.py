"""What the pages and the help texts say, held against what there is: commands, names, links, widths."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dogo_fed.compare.experiment import Method
from dogo_fed.contracts import EventKind
from server.__main__ import COMMANDS
from server.commands import compare
from server.comparison.request import preset_names
from tests.support.command_line import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
SETS_OF_PEERS = sorted((REPOSITORY / "configs" / "peers").glob("*.yaml"))
WIDEST = 100
"""Columns of a line that is no row of a table."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands(page: Path) -> list[list[str]]:
    """The words of each indented `dogo-fed` command, as a shell hands them over."""
    joined = text_of(page).replace("\\\n", "")
    return [
        shlex.split(line, comments=True)
        for line in re.findall(r"^ {4,}(dogo-fed .*)$", joined, re.MULTILINE)
    ]


def anchors(page: Path) -> set[str]:
    """The names by which links find the headings of a page."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_lists_in_commands_can_be_read_behind_a_shell() -> None:
    """A shell takes quotes away, and Hydra takes no line break and no bare "=" in a list."""
    faults, number = [], 0
    for page in PAGES:
        for word in (word for command in commands(page) for word in command):
            if word.partition("=")[2][:1] not in ("[", "{"):
                continue
            number += 1
            try:
                OverridesParser.create().parse_override(word)
            except HydraException as error:
                faults.append(f"{page.name}: {word}: {error}")
    assert not faults
    assert number > 10, "else no command was found"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_pages_links_lead_somewhere_and_its_lines_are_not_too_wide(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link
    wide = [
        number
        for number, line in enumerate(text_of(page).splitlines(), start=1)
        if len(line) > WIDEST and not line.lstrip().startswith("|")
    ]
    assert not wide, f"lines of more than {WIDEST} columns"


def test_every_preset_is_on_the_page_about_comparisons() -> None:
    page = text_of(DOCS / "compare.md")
    assert [name for name in preset_names() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("path", SETS_OF_PEERS, ids=lambda path: path.stem)
def test_the_peers_of_a_shipped_set_are_told(path: Path) -> None:
    names = re.findall(r"^ +- /peer@(?:peers\.)?([^:]+):", text_of(path), re.MULTILINE)
    label = "simclr_with_<objective>" if path.stem.startswith("simclr_with_") else path.stem
    lines = text_of(DOCS / "using.md").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{label}` |")]
    told = row.split("|")[3]
    if "` to `" in told:
        names = [names[0], names[-1]]
    assert re.findall(r"`([^`]+)`", told) == names


def test_the_picture_of_the_folders_has_every_floor_and_every_command() -> None:
    picture = text_of(DOCS / "pictures" / "tower.svg")
    contracts = tomllib.loads(text_of(REPOSITORY / "pyproject.toml"))["tool"]["importlinter"]
    floors = [
        name
        for contract in contracts["contracts"]
        if "containers" in contract
        for floor in contract["layers"]
        for name in floor.split(" | ")
    ]
    drawn = set(re.findall(r"\w+", " ".join(re.findall(r'monospace"[^>]*>([^<]+)<', picture))))
    assert [name for name in floors if name not in drawn] == []
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", picture)] == []


def test_help_and_settings_of_a_comparison_name_every_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dogo-fed compare", "--help"])
    compare.main()
    for text in (capsys.readouterr().out, text_of(REPOSITORY / "configs" / "compare.yaml")):
        missing = [one.value for one in Method if not re.search(rf"\b{one.value}\b", text)]
        assert not missing


def test_the_page_of_a_runs_files_has_every_kind_of_event() -> None:
    page = text_of(DOCS / "using.md")
    assert [kind.value for kind in EventKind if f"`{kind.value}`" not in page] == []
