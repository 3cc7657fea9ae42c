"""An override as text: whose it is, and a value that comes out of Hydra as it went in."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from configs.overrides import key_of, path_of, quoted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "a b (1), {x}=[y]#",
        "it's",
        'a "word"',
        "a\\b",
        "a\\\\b",
        "ends\\",
        "ends\\\\",
        "a\\'b",
        "\\'",
        "'",
        "3",
        "null",
    ],
)
def test_any_text_comes_out_of_hydra_as_it_went_in(text: str) -> None:
    parsed = OverridesParser.create().parse_override(quoted("a.b", text))
    assert (parsed.key_or_group, parsed.value()) == ("a.b", text)


@pytest.mark.parametrize(
    ("override", "key", "path"),
    [
        ("seed=3", "seed", "seed"),
        ("++peers.x.data=a=b", "peers.x.data", "peers.x.data"),
        ("~peers.x", "peers.x", "peers.x"),
        ("+peer@peers.x=usual", "peer@peers.x", "peers.x"),
    ],
)
def test_what_an_override_is_about(override: str, key: str, path: str) -> None:
    assert (key_of(override), path_of(override)) == (key, path)
