"""Plain values become settings: what no setting has is named with its whole path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from configs.compose import compose_run
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.errors import ConfigError
from dogo_fed.plain import from_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    part: Part = Part()
    perhaps: Part | None = None
    words: Mapping[str, int] = field(default_factory=dict)


@pytest.mark.parametrize("section", ["part", "perhaps"])
def test_a_key_that_a_section_does_not_have_is_named_whole_also_where_it_may_be_null(section):
    with pytest.raises(ConfigError) as refusal:
        from_plain(Whole, {section: {"sizex": 2}}, path="peers.wide.")
    said = f"unknown setting 'peers.wide.{section}.sizex'; did you mean 'size'?"
    assert str(refusal.value) == said


def test_what_is_there_becomes_the_section_and_null_stays_null():
    assert from_plain(Whole, {"perhaps": {"size": 2}}).perhaps == Part(size=2)
    assert from_plain(Whole, {"perhaps": None, "words": {"any": 1}}) == Whole(words={"any": 1})


@pytest.mark.parametrize(
    ("section", "path"),
    [(("peers", "wide", "data"), "peers.wide.data"), (("baseline",), "baseline")],
)
def test_it_is_so_for_the_sections_of_a_run_that_may_be_null(section, path):
    content = to_mapping(compose_run(["data=synthetic", "peers=pair"]))
    inner = content
    for name in section[:-1]:
        inner = inner[name]
    inner[section[-1]] = {"name": "image_folder", "rooot": "/photos"}
    with pytest.raises(ConfigError, match=rf"^unknown setting '{path}\.rooot'"):
        from_mapping(content)
