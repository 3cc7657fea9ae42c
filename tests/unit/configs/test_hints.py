"""A word that is no setting: what is meant by it, by the settings that there are."""

from __future__ import annotations

import pytest

from configs.compose import known_settings
from configs.groups import names_of, options_of
from configs.hints import Hint, hint_for, is_word

PHOTOS = known_settings("run", ["data=image_folder"])
DIGITS = known_settings("run", [])
ONE_PEER = known_settings("run", ["peers=solo"])
BOTH = ", with the peer's name: resnet, wide"


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("epochs", "rounds=7"),
        ("Num-Epochs", "rounds=7"),
        ("peers.wide.epochs", "rounds=7"),
        ("batchsize", "batch_size=7"),
        ("knn_k", "eval.knn_k=7"),
        ("test_share", "eval.test_share=7"),
        ("skip_broken", "data.options.skip_broken=7"),
        ("data.skip_broken", "data.options.skip_broken=7"),
        ("data.image_size", "data.options.image_size=7"),
        ("img-size", "data.options.image_size=7"),
        ("arch", "peers=7"),
        ("backbone", f"peers.<name>.backbone=7{BOTH}"),
        ("learning-rate", f"peers.<name>.optimizer.options.lr=7{BOTH}"),
        ("optimizer.lr", f"peers.<name>.optimizer.options.lr=7{BOTH}"),
        ("peers.wide.lr", "peers.wide.optimizer.options.lr=7"),
        ("peers.wide.optimizer.lr", "peers.wide.optimizer.options.lr=7"),
        ("schedule", f"peers.<name>.optimizer.schedule=7{BOTH}"),
        ("checkpoint", f"peers.<name>.init=7{BOTH}"),
        ("seed", "seed=7"),
    ],
)
def test_a_word_is_answered_with_the_setting_that_it_means(key, typed):
    assert hint_for(key, "7", PHOTOS) == Hint(typed, f"; type {typed}")


def test_what_there_is_to_type_exists():
    """Whatever a word is taken for, as long as a setting is named."""
    for known in (PHOTOS, DIGITS, ONE_PEER, known_settings("evaluate", ["data=npz"])):
        for key in ("lr", "epochs", "out", "arch", "method", "resolution", "weights", "run", "wd"):
            typed = hint_for(key, "7", known).typed.partition("=")[0]
            assert not typed or any(typed.replace("<name>", peer) in known for peer in ("wide", ""))


def test_a_setting_of_a_single_peer_has_its_name():
    assert hint_for("lr", "0.1", ONE_PEER).typed == "peers.resnet.optimizer.options.lr=0.1"


def test_without_a_value_a_switch_is_true():
    assert hint_for("symmetric", None, DIGITS).typed == "exchange.symmetric=true"
    assert hint_for("rounds", None, DIGITS).typed == "rounds=<value>"


def test_an_option_of_other_data_sets_names_them():
    text = hint_for("image_size", "96", DIGITS).text
    assert "digits_m has none" in text and "it is data.options.image_size=96" in text
    for name in names_of("data"):
        assert (f" {name}," in text) == ("image_size" in options_of(name)), name


@pytest.mark.parametrize("key", ["num_workers", "workers", "gpu", "pretrained"])
def test_what_needs_no_setting_is_told_so(key):
    hint = hint_for(key, "4", PHOTOS)
    assert is_word(key) and not hint.typed
    assert "type" not in hint.text and "did you mean" not in hint.text and hint.text


@pytest.mark.parametrize("key", ["seed", "rounds", "eval.knn_k", "peers", "data"])
def test_a_setting_is_no_other_word_for_one(key):
    assert not is_word(key)


def test_misspelt_settings_are_found_below_what_is_alike_and_of_the_same_peer():
    assert hint_for("eval.knn", "3", PHOTOS).text == "; did you mean eval.knn_k=3?"
    assert hint_for("sed", "3", PHOTOS).text == "; did you mean seed=3?"
    wide = hint_for("peers.wide.backbone.options.widht", "3", PHOTOS).text
    assert wide == "; did you mean peers.wide.backbone.options.width=3?"
    assert hint_for("peers.ada.lrr", "3", PHOTOS).text.endswith("the peers are resnet, wide")
    assert hint_for("colour", "red", PHOTOS) == Hint()


def test_a_command_has_words_of_its_own():
    words = {"run_dir": "out", "seed": "seeds", "methods": "methods"}
    assert hint_for("output_dir", "x", DIGITS, words).typed == "out=x"
    assert hint_for("seed", "3", DIGITS, words).typed == "seeds=3"
    assert hint_for("method", "solo", DIGITS, words).typed == "methods=solo"


def test_an_option_of_a_protocol_that_is_not_chosen_comes_with_its_choice():
    known = known_settings("evaluate", [])
    assert hint_for("knn.k", "3", known).text == "; type protocol=knn protocol.knn.k=3"
