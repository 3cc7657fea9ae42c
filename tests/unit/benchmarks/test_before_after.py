"""Two comparisons of the same seeds are held against each other, pair by pair."""

from __future__ import annotations

import json

import pytest

from benchmarks import before_after


def comparison(scores: dict[str, dict[int, float]], metric: str = "knn_top1") -> dict:
    columns = {
        name: {"scores": {str(seed): one for seed, one in by_seed.items()}}
        for name, by_seed in scores.items()
    }
    row = {"peers": "pair", "data": "digits_m", "metric": metric, "peer": "wide"}
    return {"rows": [{**row, "methods": columns, "variants": {}}]}


@pytest.fixture
def folders(tmp_path):
    def write(name: str, content: object):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compare.json").write_text(json.dumps(content))
        return str(tmp_path / name)

    return write


def test_seeds_are_paired_and_others_left_out(folders, capsys):
    before = folders("before", comparison({"solo": {0: 0.70, 1: 0.80, 7: 0.1}}))
    after = folders("after", comparison({"solo": {1: 0.81, 0: 0.72, 9: 0.9}, "dogo": {0: 0.5}}))
    before_after.main([before, f"{after}/compare.json"])
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("| pair | digits_m | knn_top1 | wide | solo | 75.0 ± 7.1 | 76.5 ± 6.4 |")
    assert "+1.5 [" in line and "n=2" in line  # +2 and +1; the means of all seeds would say 12.7
    assert "dogo" not in line


def test_a_method_is_chosen(folders, capsys):
    both = comparison({"solo": {0: 0.7}, "dogo": {0: 0.8}})
    before, after = folders("before", both), folders("after", both)
    before_after.main([before, after, "--methods", "dogo"])
    assert [line.split(" | ")[4] for line in capsys.readouterr().out.splitlines()[2:]] == ["dogo"]


def test_scores_without_labels_are_no_percentages(folders, capsys):
    one = comparison({"solo": {0: 12.3456}}, metric="rankme")
    before_after.main([folders("before", one), folders("after", one)])
    assert "| 12.346 |" in capsys.readouterr().out


@pytest.mark.parametrize("content", [[], {}, {"rows": [{}]}, {"rows": 3}])
def test_what_is_no_comparison_is_refused(folders, content, capsys):
    good = folders("good", comparison({"solo": {0: 0.7}}))
    with pytest.raises(SystemExit):
        before_after.main([good, folders("bad", content)])
    assert "dogo-fed compare" in capsys.readouterr().err


def test_nothing_in_common_is_told(folders, capsys):
    one, other = comparison({"solo": {0: 0.7}}), comparison({"solo": {1: 0.7}})
    with pytest.raises(SystemExit):
        before_after.main([folders("one", one), folders("other", other)])
    assert "in common" in capsys.readouterr().err
