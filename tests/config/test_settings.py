import ast
import dataclasses
import json

import pytest
from conftest import REPOSITORY

from brats_tf.config.checks import BUILT_FROM
from brats_tf.config.presets import CROP, PRESETS
from brats_tf.config.settings import Config, run_names
from brats_tf.errors import InputError
from brats_tf.models.registry import NETWORKS


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
    changes = {"patch": (64, 32, 9)} if "albunet" in preset else {"depth_factors": (2, 2, 3)}
    changes |= {"step": (32, 32, 9)} if "albunet" in preset else {}
    config = Config.from_preset(preset, modalities=("t1", "t2"), crop=(64, 64, 36), seed=7, **changes)
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
    with pytest.raises(InputError, match="paper, authors, plus, albunet3d.*. Received: 'best'"):
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
    built_from = {name for names in BUILT_FROM.values() for name in names}  # `network_settings` reads these by name.
    assert {field.name for field in dataclasses.fields(Config)} <= attributes | built_from
    assert set(BUILT_FROM) == set(NETWORKS)


def test_the_presets_of_paper_b():
    three, two = (Config.from_preset(name) for name in ("albunet3d", "albunet2d"))
    assert (three.modalities, three.input_shape, three.window_step) == (
        ("flair", "t1ce", "t2"),
        (128, 128, 24, 3),
        (32, 32, 24),
    )
    assert (three.batch_size, three.batches, three.epochs, three.learning_rate, three.schedule) == (
        24,
        100,
        50,
        1e-3,
        "constant",
    )
    assert (two.input_shape, two.batch_size, two.depth_layers, three.depth_layers) == (
        (128, 128, 1, 3),
        64,
        False,
        True,
    )
    authors = Config.from_preset("albunet2d-authors")
    assert (authors.modalities[0], authors.loss, authors.depth_layers) == ("t1ce", "multiple_dice_background", True)
    assert run_names("albunet3d") == ("albunet3d-flair-t1ce-t2",)
    assert len(set(run_names("albunet3d-subsets"))) == 4
    assert run_names("paper") == ("flair", "t1", "t1ce", "t2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": (64, 64, 200)}, r"`patch` must be three whole numbers from 1 to \(240, 240, 155\)"),
        ({"step": (64, 200, 1)}, r"`step` must be three whole numbers from 1 to \(128, 128, 24\)"),
        ({"accumulation": 5}, "`accumulation` must divide the batch size 24. Received: 5"),
        ({"foreground": 1.5}, "`foreground` must be from 0 to 1. Received: 1.5"),
        ({"loss": "dice"}, "`loss` must be ce_minus_dice or multiple_dice or .* Received: 'dice'"),
        ({"window_weights": "hann"}, "`window_weights` must be uniform or gaussian. Received: 'hann'"),
        ({"backbone": "vgg16"}, "The network albunet has no `backbone`. Received: vgg16"),
    ],
)
def test_what_paper_b_does_not_take_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        Config.from_preset("albunet3d", **changes)


@pytest.mark.parametrize("change", [{"step": (1, 1, 1)}, {"foreground": 0.5}, {"window_weights": "gaussian"}])
def test_what_only_patches_have_is_refused_without_them(change):
    (name,) = change
    with pytest.raises(InputError, match=f"`{name}` is for networks that see patches"):
        Config.from_preset("paper", modalities=("t1",), **change)
