import ast
import dataclasses
import json

import pytest
from conftest import REPOSITORY

from brats_tf.config import Config
from brats_tf.errors import InputError
from brats_tf.presets import CROP, PRESETS


def test_the_default_is_the_paper():
    config = Config.from_preset("paper", modalities=("flair",))
    assert config == Config(modalities=("flair",))
    assert (config.crop, config.batch_size, config.learning_rate, config.plateau_epochs) == (
        (192, 160, 108),
        1,
        1e-4,
        50,
    )
    assert (config.input_scaling, config.batch_norm, config.optimizer, config.weights) == (
        "none",
        "frozen",
        "adam",
        "imagenet",
    )


def test_authors_stack_four_modalities_at_depth_144():
    config = Config.from_preset("authors")
    assert config.network_settings()["shape"] == (192, 160, 144, 4)
    assert (config.input_scaling, config.batch_norm, config.optimizer) == ("imagenet", "batch", "nadam")
    assert config.run_name == "flair-t1-t1ce-t2"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_survives_its_file(preset, tmp_path):
    config = Config.from_preset(preset, modalities=("t1", "t2"), crop=(64, 64, 36), depth_factors=(2, 2, 3), seed=7)
    config.save(tmp_path)
    assert Config.load(tmp_path) == config


def test_changes_that_are_none_do_not_count():
    assert Config.from_preset("paper", modalities=("t2",), crop=None).crop == CROP


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modality": "flair"}, "Unknown settings modality. Known are: modalities, preset"),
        ({"modalities": ("T1",)}, "`modalities` must be from flair, t1, t1ce, t2. Received: 'T1'"),
        ({"modalities": ("t1", "t1")}, "must not repeat"),
        ({"modalities": ()}, "Received: none"),
        ({"crop": (64, 64)}, "`crop` must be three positive whole numbers"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1. Received: 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
        ({"optimizer": "sgd"}, "`optimizer` must be adam or nadam. Received: 'sgd'"),
        ({"seed": -1}, "`seed` must be a whole number from 0 to 4294967295. Received: -1"),
        ({"seed": 2**32}, "`seed` must be a whole number from 0 to 4294967295"),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        Config.from_preset("paper", **({"modalities": ("flair",)} | changes))


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match="paper, authors, plus. Received: 'best'"):
        Config.from_preset("best", modalities=("flair",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds no trained network"),
        ("{", "no readable JSON"),
        ("[]", "must hold a JSON object"),
        (json.dumps({"modalities": ["t1"], "lr": 1}), "Unknown settings lr"),
        (json.dumps({"modalities": ["t1"], "crop": 5}), "holds a value of a wrong type"),
        (json.dumps({"modalities": ["t1"], "learning_rate": "x"}), "holds a value of a wrong type"),
    ],
)
def test_a_run_with_a_bad_config_file_is_refused(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        Config.load(tmp_path)


def test_every_field_is_read_somewhere():
    attributes = set()
    for path in (REPOSITORY / "brats_tf").rglob("*.py"):
        attributes |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert {field.name for field in dataclasses.fields(Config)} <= attributes
