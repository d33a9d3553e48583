import ast
import dataclasses
import json
from typing import ClassVar

import pytest
from repository import REPOSITORY

from brats_tf.config.config import NETWORKS, SECTIONS, Config, all_settings, run_names
from brats_tf.config.fields import Setting, Size, check_value, setting, settings_of
from brats_tf.config.presets import NETWORKS_OF, PRESETS, SUMMARIES, phantom_settings
from brats_tf.config.settings import CROP, ClassifierSettings, DataSettings
from brats_tf.errors import InputError
from brats_tf.models import registry
from brats_tf.regions import MODALITIES


def test_the_default_is_the_embedding_paper():
    config = Config.from_preset("embedding", modalities=("flair",))
    assert config == Config(DataSettings(("flair",)))
    data, network, training = config.data, config.network, config.training
    assert (data.crop, training.batch_size, training.learning_rate, training.plateau_patience) == (
        (192, 160, 108),
        1,
        1e-4,
        50,
    )
    assert (network.input_scaling, network.batch_norm, training.optimizer, network.weights) == (
        "standardise",
        "frozen",
        "adam",
        "imagenet",
    )


def test_authors_stack_four_modalities_at_depth_144():
    config = Config.from_preset("embedding-authors")
    assert config.network_settings()["shape"] == (192, 160, 144, 4)
    assert (config.network.input_scaling, config.network.batch_norm, config.training.optimizer) == (
        "imagenet",
        "batch",
        "nadam",
    )
    assert config.run_name == "embedding-authors-flair-t1-t1ce-t2"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_survives_its_file(preset, tmp_path):
    changes = {"slab": 3} if preset == "embedding-plus" else {"depth_factors": (2, 2, 3)}
    changes = {"patch_size": (64, 32, 9)} if "albunet" in preset else changes
    changes |= {"window_stride": (32, 32, 9)} if "albunet" in preset else {}
    config = Config.from_preset(preset, modalities=("t1", "t2"), crop=(64, 64, 36), seed=7, **changes)
    config.save(tmp_path)
    assert Config.load(tmp_path) == config == Config.load(tmp_path / "config.json")


def test_changes_that_are_none_do_not_count():
    assert Config.from_preset("embedding", modalities=("t2",), crop=None).data.crop == CROP


def test_replace_keeps_everything_else():
    config = Config.from_preset("albunet3d", seed=3)
    changed = config.replace(epochs=7, window_stride=None, seed=4)
    assert (changed.training.epochs, changed.window_stride, changed.seed) == (7, (64, 64, 12), 4)
    assert changed.replace(epochs=50, window_stride=(32, 32, 24), seed=3) == config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modality": "flair"}, "Unknown settings modality. Known are: seed, modalities, crop"),
        ({"modality_dropout": 0.5}, "`modality_dropout` needs a network of several modalities. Received: 0.5 for"),
        ({"modalities": ("T1",)}, "`modalities` must be one of flair, t1, t1ce, t2. Received: 'T1'"),
        ({"modalities": ("t1", "t1")}, "must not repeat"),
        ({"modalities": ()}, "Received: none"),
        ({"crop": (64, 64)}, "`crop` must be three positive whole numbers, H x W x D. Received: (64, 64)"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1. Received: 0"),
        ({"epochs": True}, "`epochs` must be a whole number of at least 1. Received: True"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a number above 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a number above 0. Received: nan"),
        ({"optimizer": "sgd"}, "`optimizer` must be adam or nadam. Received: 'sgd'"),
        ({"seed": -1}, "`seed` must be a whole number from 0 to 4294967295. Received: -1"),
        ({"seed": 2**32}, "`seed` must be a whole number from 0 to 4294967295"),
        ({"folds": 5}, "`folds` and `fold` belong together"),
        ({"folds": 5, "fold": 5}, "`fold` must be from 0 to folds - 1. Received: fold=5, folds=5"),
        ({"folds": 5, "fold": 0, "validation_split": 0.2}, "exclude each other"),
        ({"split_seed": 1}, "`split_seed` is for `folds` or `validation_split`. Received: 1 without them."),
        ({"validation_split": 1.0}, "`validation_split` must be between 0 and 1. Received: 1.0"),
        ({"validation_split": 0.0}, "`validation_split` must be a number above 0. Received: 0.0"),
        ({"warmup_epochs": 1}, "`warmup_epochs` must be from 0 to 0 for the schedule plateau"),
        ({"plateau_monitor": "validation"}, "needs the schedule plateau and `validation_frequency`"),
        ({"depth_layers": False}, "The network embedding has no `depth_layers`. Received: False"),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(InputError) as caught:
        Config.from_preset("embedding", **({"modalities": ("flair",)} | changes))
    assert sentence in str(caught.value)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match="embedding, embedding-authors, embedding-plus, albunet3d.*. Received: 'best'"):
        Config.from_preset("best", modalities=("flair",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds no trained network"),
        ("{", "is not readable JSON"),
        ("[]", "must be a JSON object. Received: list"),
        (json.dumps({"data": {"modalities": ["t1"]}, "lr": 1}), "Unknown settings lr"),
        (json.dumps({"data": {"modalities": ["t1"], "lr": 1}}), "Unknown settings lr. Known are: modalities, crop"),
        (json.dumps({"data": [1]}), "`data` must be a JSON object"),
        (json.dumps({"data": {"modalities": ["t1"]}, "network": {"name": "vgg"}}), "`network` must be one of"),
        (json.dumps({"data": {"modalities": ["t1"]}, "network": {"depth_layers": True}}), "Unknown settings depth_lay"),
        (json.dumps({"data": {"modalities": ["t1"], "crop": 5}}), "config.json: `crop` must be three positive"),
        (json.dumps({"data": {"modalities": ["t1"]}, "training": {"learning_rate": "x"}}), "must be a number above 0"),
    ],
)
def test_a_run_with_a_bad_config_file_is_refused(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        Config.load(tmp_path)


def test_every_setting_is_read_somewhere():
    attributes = set()
    for path in (REPOSITORY / "brats_tf").rglob("*.py"):
        attributes |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    built_from = {name for kind in NETWORKS.values() for name in settings_of(kind)}  # `network_settings` reads these.
    assert set(all_settings()) <= attributes | built_from
    assert set(NETWORKS) == set(registry.NETWORKS)


def test_the_names_of_settings_are_unique_and_documented():
    sections = [*SECTIONS.values(), *dict.fromkeys(NETWORKS.values())]
    for kind in sections:
        fields = {field.name for field in dataclasses.fields(kind)}
        assert fields == set(settings_of(kind)), f"{kind.__name__} has a field without help text"
    shared = {"name", "weights", *settings_of(ClassifierSettings)}  # Of several kinds of network, with one meaning.
    names = [name for kind in sections for name in settings_of(kind) if name not in shared]
    assert len(names) == len(set(names))
    assert set(SUMMARIES) == set(PRESETS) >= set(NETWORKS_OF)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_settings_for_synthetic_cases_fit_their_preset(preset):
    config = Config.from_preset(preset, **({"modalities": ("t1",)} | PRESETS[preset] | phantom_settings(preset)))
    assert config.training.epochs in (3, 4)


def test_a_new_field_is_checked_by_its_declaration():
    @dataclasses.dataclass(frozen=True)
    class Section:
        kind: ClassVar[str] = "none of the settings"
        share: float | None = setting(None, "a share", none="nothing", minimum=0, maximum=1)
        size: Size = setting((1, 2, 3), "a size")

    share, size = settings_of(Section).values()
    assert share == Setting("share", float, True, None, "a share", none="nothing", minimum=0, maximum=1)
    assert (share.option, size.kind) == ("--share", Size)
    check_value(share, None)
    with pytest.raises(InputError, match="`share` must be a number from 0 to 1. Received: 2"):
        check_value(share, 2)
    with pytest.raises(InputError, match="`size` must be three positive whole numbers"):
        check_value(size, (1, 2, 0))


def test_the_presets_of_the_albunet_paper():
    three, two = (Config.from_preset(name) for name in ("albunet3d", "albunet2d"))
    assert (three.data.modalities, three.input_shape, three.window_stride) == (
        ("flair", "t1ce", "t2"),
        (128, 128, 24, 3),
        (32, 32, 24),
    )
    training = three.training
    assert (training.batch_size, training.steps_per_epoch, training.epochs) == (24, 100, 50)
    assert (training.learning_rate, training.schedule) == (1e-3, "constant")
    assert (two.input_shape, two.training.batch_size) == ((128, 128, 1, 3), 64)
    assert (two.network.depth_layers, three.network.depth_layers) == (False, True)
    authors = Config.from_preset("albunet2d-authors")
    assert (authors.data.modalities[0], authors.training.loss) == ("t1ce", "multiple_dice_background")
    assert authors.network.depth_layers
    assert run_names("albunet3d") == ("albunet3d-flair-t1ce-t2",)
    assert len(set(run_names("albunet3d-subsets"))) == 4
    assert run_names("embedding") == tuple(f"embedding-{name}" for name in MODALITIES)
    assert run_names("embedding", "mine")[0] == "mine-flair"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size": (64, 64, 200)}, "`patch_size` must be at most 240x240x155 in each axis. Received: 64x64x200"),
        ({"window_stride": (64, 200, 1)}, "`window_stride` must be at most 128x128x24 in each axis"),
        ({"gradient_accumulation_steps": 5}, "must divide the batch size 24. Received: 5"),
        ({"foreground_fraction": 1.5}, "`foreground_fraction` must be a number from 0 to 1. Received: 1.5"),
        ({"loss": "dice"}, "`loss` must be ce_minus_dice or multiple_dice or .* Received: 'dice'"),
        ({"window_weighting": "hann"}, "`window_weighting` must be uniform or gaussian. Received: 'hann'"),
        ({"backbone": "vgg16"}, "The network albunet has no `backbone`. Received: vgg16"),
        ({"rematerialise": True}, "`rematerialise` is not available for AlbuNet"),
    ],
)
def test_what_albunet_does_not_take_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        Config.from_preset("albunet3d", **changes)


def test_a_classifier_that_is_kept_has_frozen_statistics():
    with pytest.raises(InputError, match="`batch_norm` must be frozen. Received: batch"):
        Config.from_preset("embedding-authors", classifier_rate=0)
    Config.from_preset("embedding-authors", classifier_rate=0, batch_norm="frozen")


@pytest.mark.parametrize(
    "change", [{"window_stride": (1, 1, 1)}, {"foreground_fraction": 0.5}, {"window_weighting": "gaussian"}]
)
def test_what_only_patches_have_is_refused_without_them(change):
    (name,) = change
    with pytest.raises(InputError, match=f"`{name}` is for networks that see patches"):
        Config.from_preset("embedding", modalities=("t1",), **change)


@pytest.mark.parametrize("preset", ["embedding", "embedding-plus"])
def test_networks_that_see_whole_crops_take_no_patches(preset):
    with pytest.raises(InputError, match="network sees whole crops.* Received: patch_size 64x64x36"):
        Config.from_preset(preset, modalities=("t1",), patch_size=(64, 64, 36))


def test_a_file_that_lacks_settings_has_those_of_its_preset():
    """Of an earlier version, or written by hand."""
    for preset in ("albunet3d", "embedding-authors", "embedding-plus"):
        expected = Config.from_preset(preset, modalities=("flair", "t1ce", "t2"))
        content = {"preset": preset, "data": {"modalities": ["flair", "t1ce", "t2"]}}
        assert Config.from_dict(content) == expected
        whole = expected.to_dict()
        del whole["training"]["optimizer"], whole["data"]["crop"], whole["network"]["name"]
        assert Config.from_dict(whole) == expected


def test_smaller_patches_make_the_stride_smaller():
    config = Config.from_preset("albunet3d", patch_size=(128, 128, 16))
    assert config.window_stride == (32, 32, 16)
    assert config.replace(patch_size=(16, 64, 8)).window_stride == (16, 32, 8)
    assert config.replace(patch_size=(128, 128, 24)).window_stride == (32, 32, 16)
    with pytest.raises(InputError, match="`window_stride` must be at most 128x128x16"):
        Config.from_preset("albunet3d", patch_size=(128, 128, 16), window_stride=(32, 32, 24))
    with pytest.raises(InputError, match="`patch_size` must be three positive whole numbers"):
        Config.from_preset("albunet3d", patch_size=(128, 128))


def test_what_would_do_nothing_is_refused():
    with pytest.raises(
        InputError, match="`plateau_patience` is for the schedule plateau. Received: 3 for the schedule"
    ):
        Config.from_preset("embedding", modalities=("flair",), schedule="cosine", plateau_patience=3)
    with pytest.raises(InputError, match="`plateau_patience` is for the schedule plateau"):
        Config.from_preset("embedding-plus", plateau_patience=3)


def test_a_file_may_hold_what_does_nothing():
    """As runs of earlier versions have it."""
    content = Config.from_preset("embedding-plus").to_dict()
    content["training"] |= {"plateau_patience": 5, "start_from": "runs/a"}
    content["network"]["weights"] = "none"
    config = Config.from_dict(content)
    assert config.training.plateau_patience == 5
    assert config.replace(epochs=7).training.epochs == 7
    content = {"preset": "albunet3d", "data": {"patch_size": [128, 128, 16]}}
    assert Config.from_dict(content).window_stride == (32, 32, 16)


def test_whole_numbers_are_numbers():
    config = Config.from_preset("embedding", modalities=("flair",), learning_rate=1)
    assert type(config.training.learning_rate) is float
    assert type(Config.from_dict(config.to_dict()).training.learning_rate) is float


def test_a_warm_up_ends_with_the_training():
    assert Config.from_preset("embedding-plus").training.warmup_epochs == 2
    assert Config.from_preset("embedding-plus", epochs=1).training.warmup_epochs == 1
    assert Config.from_preset("embedding-plus", schedule="plateau").training.warmup_epochs == 0
    with pytest.raises(InputError, match="`warmup_epochs` must be from 0 to 1 .* Received: 2"):
        Config.from_preset("embedding-plus", epochs=1, warmup_epochs=2)
