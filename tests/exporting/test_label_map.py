import json
import re
import shutil
import subprocess
import sys

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.cli.main import main
from brats_tf.config.config import Config
from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.discovery import find_cases
from brats_tf.data.splits import Split
from brats_tf.errors import InputError
from brats_tf.exporting.export import export_networks, has_label_map
from brats_tf.exporting.label_map import networks_used, z_score
from brats_tf.exporting.model_card import read_results
from brats_tf.exporting.verification import compare_label_maps
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.models.build import build_network
from brats_tf.preprocessing import transforms
from brats_tf.preprocessing.transforms import orient
from brats_tf.regions import BRATS_2017, MODALITIES
from brats_tf.runs.network import load_network
from brats_tf.runtime.files import sha256_of

LOADER = """
import sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
np.save(sys.argv[3], model.signatures["label_map"](volume=tf.constant(np.load(sys.argv[2])))["labels"].numpy())
assert not any(name.startswith("brats_tf") for name in sys.modules)
"""
FLOAT32, NO_STEPS = ForwardOptions(), PostProcessing()


def written(folder, preset="embedding", **settings):
    """An untrained run whose split has three training cases."""
    untrained(folder, preset, change=decided, **settings)
    Split("all", 0, ["a", "b", "c"], []).save(folder)
    return folder


def decided(network):
    """Larger weights at the end, so that the label map has every class and few voxels on the threshold."""
    last = [layer for layer in network.layers if layer.weights][-1]
    last.set_weights([np.random.default_rng(1).normal(size=weight.shape) * 3 for weight in last.get_weights()])


@pytest.fixture(scope="module", autouse=True)
def small_embedding():
    """Preset `embedding` is small; what the graph does around it is what is tested here."""
    with networks_of_two_convolutions():
        yield


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    return [written(folder / name, modalities=(name,)) for name in ("flair", "t1ce")]


@pytest.fixture(scope="module")
def predictions(ensemble, phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions")
    predict_cases(load_ensemble(ensemble), phantoms[:1], out=out, data=phantoms[0].folder.parent)
    return out


@pytest.fixture(scope="module")
def saved(ensemble, predictions, tmp_path_factory):
    """The ensemble, exported by the command with the scores that `evaluate` finds."""
    out = tmp_path_factory.mktemp("exported") / "saved"
    assert main(["evaluate", str(predictions)]) == 0
    words = ["--out", str(out), "--results", str(predictions / "results")]
    assert main(["export", *map(str, ensemble), *words]) == 0
    return out


def raw(case, modalities):
    """A case as `label_map` takes it, as docs/how-to/export.md says."""
    images = [nib.as_closest_canonical(nib.load(case.volumes[name])) for name in modalities]
    volume = np.stack([image.get_fdata(dtype=np.float32) for image in images], axis=-1)
    return volume.transpose(1, 0, 2, 3)[::-1, ::-1]


def predicted(runs, case, out, forward=FLOAT32, steps=NO_STEPS):
    predict_cases(load_ensemble(runs, forward=forward), [case], out=out, postprocessing=steps)
    return labels_in(out, case)


def labels_in(out, case):
    image = nib.load(out / f"{case.id}.nii.gz")
    return orient(np.asarray(image.dataobj), image.affine)


@pytest.mark.slow
def test_label_maps_in_a_python_without_brats_tf_are_those_of_predict(saved, predictions, phantoms, tmp_path):
    np.save(tmp_path / "volume.npy", raw(phantoms[0], ("flair", "t1ce")))
    command = [sys.executable, "-c", LOADER, saved, tmp_path / "volume.npy", tmp_path / "labels.npy"]
    subprocess.run([str(part) for part in command], check=True, cwd=tmp_path, capture_output=True)
    labels = np.load(tmp_path / "labels.npy")
    np.testing.assert_array_equal(labels, labels_in(predictions, phantoms[0]))
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.large)])
def test_mirroring_precision_steps_and_labels_are_inside(ensemble, phantoms, tmp_path, precision):
    forward, steps = ForwardOptions(precision, mirror="lr"), PostProcessing(drop_et_below_ml=1e4)
    options = ExportOptions(convention="brats2024-ped")  # Necrosis is 2, edema 4.
    export_networks(ensemble[:1], out=tmp_path / "saved", forward=forward, steps=steps, options=options)
    model = tf.saved_model.load(tmp_path / "saved")
    labels = model.label_map(raw(phantoms[0], ("flair",)))["labels"].numpy()
    expected = predicted(ensemble[:1], phantoms[0], tmp_path / "predictions", forward, steps)
    np.testing.assert_array_equal(labels, np.array([0, 2, 4], np.uint8)[expected])
    assert set(np.unique(labels)) == {0, 2, 4}


def test_a_missing_modality_is_left_out_as_predict_does(saved, ensemble, phantoms, tmp_path):
    model = tf.saved_model.load(saved)
    volume = raw(phantoms[0], ("flair", "t1ce")).copy()
    volume[..., 1] = 0
    expected = predicted(ensemble[:1], phantoms[0], tmp_path / "predictions")
    np.testing.assert_array_equal(model.label_map(volume)["labels"].numpy(), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no network fits .* flair, t1ce"):
        model.label_map(np.zeros_like(volume))
    volume[3, 3, 3, 0] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="finite numbers"):
        model.label_map(volume)


@pytest.mark.parametrize(
    ("missing", "used"),
    [
        ([], [True, True]),
        (["t1"], [False, True]),  # It can do without one, but another network needs no substitute.
        (["flair"], [True, False]),
        (["flair", "t1"], [False, False]),
    ],
)
def test_networks_are_chosen_by_what_is_there(missing, used):
    stacked = Config.from_preset("embedding-plus", modality_dropout=0.3)
    flair = Config.from_preset("embedding", modalities=("flair",))
    present = tf.constant([name not in missing for name in MODALITIES])
    assert [bool(one) for one in networks_used([stacked, flair], present, MODALITIES)] == used


@pytest.mark.large
def test_a_network_with_modality_dropout_takes_three_of_four(phantoms, tmp_path):
    run = written(tmp_path / "plus", "embedding-plus", modality_dropout=0.3)
    export_networks([run], out=tmp_path / "saved")
    model = tf.saved_model.load(tmp_path / "saved")
    volume = raw(phantoms[0], ("flair", "t1", "t1ce", "t2")).copy()
    complete = model.label_map(volume)["labels"].numpy()
    np.testing.assert_array_equal(complete, predicted([run], phantoms[0], tmp_path / "predictions"))
    volume[..., 0] = 0
    without = model.label_map(volume)["labels"].numpy()
    assert without.any()
    assert (without != complete).any()
    volume[..., 1] = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="no network fits"):
        model.label_map(volume)


def test_probabilities_are_the_average(saved, ensemble):
    model = tf.saved_model.load(saved)
    volume = np.random.default_rng(1).normal(size=(2, *TINY_CROP, 2)).astype("float32")
    expected = 0
    for place, run in enumerate(ensemble):
        expected = expected + load_network(run)[1](volume[..., place, None], training=False).numpy() / 2
    for found in (model.probabilities(volume), model.signatures["serving_default"](volume=tf.constant(volume))):
        np.testing.assert_allclose(found["regions"], expected, atol=1e-5)


def test_the_z_score_in_the_graph_is_that_of_predict():
    random = np.random.default_rng(0)
    for brain in (random.integers(1, 4000, (30, 31, 32)), random.normal(size=(30, 31, 32)), np.full((4, 4, 4), 7)):
        voxels = (brain * (random.random(brain.shape) > 0.4)).astype(np.float32)
        expected = transforms.z_score(voxels, *transforms.brain_statistics(voxels))
        np.testing.assert_array_equal(z_score(tf.constant(voxels)).numpy(), expected)
    assert not z_score(tf.zeros((3, 3, 3))).numpy().any()


FLAIR, PATCHES = {"modalities": ("flair",)}, {"preset": "albunet3d", "patch_size": (32, 32, 24)}
NO_GRAPH = [(PATCHES, "sliding windows"), (FLAIR | {"spacing_mm": 2.0}, "resampled volumes")]


@pytest.mark.parametrize(("settings", "words"), NO_GRAPH)
def test_what_is_no_graph_has_no_label_map(settings, words, caplog):
    caplog.set_level("INFO")
    config = Config.from_preset(**({"preset": "embedding"} | settings))
    assert not has_label_map([config], FLOAT32, NO_STEPS, ExportOptions())
    assert words in caplog.text
    for asked in ((FLOAT32, PostProcessing(drop_et_below_ml=1.0)), (ForwardOptions(mirror="lr"), NO_STEPS)):
        with pytest.raises(InputError, match=words):
            has_label_map([config], *asked, ExportOptions())
    with pytest.raises(InputError, match=words):
        has_label_map([config, config], FLOAT32, NO_STEPS, ExportOptions())


@pytest.mark.large
@pytest.mark.parametrize(("settings", "words"), NO_GRAPH)
def test_what_is_no_graph_is_exported_as_probabilities_alone(settings, words, tmp_path):
    own = {} if settings == PATCHES else {"preset": "embedding", "backbone": "tiny", "crop": TINY_CROP}
    config = Config.from_preset(**({"weights": "none"} | own | settings))
    run = tmp_path / "run"
    config.save(run)
    build_network(config).save_weights(run / "network.weights.h5")
    export_networks([run], out=tmp_path / "saved")
    assert set(tf.saved_model.load(tmp_path / "saved").signatures) == {"serving_default", "probabilities"}
    assert "label_map" not in (tmp_path / "saved" / "model_card.md").read_text()
    with pytest.raises(InputError, match=words):
        export_networks([run], out=tmp_path / "refused", forward=ForwardOptions(mirror="lr"))
    assert not (tmp_path / "refused").exists()


def test_parts_and_sizes_have_no_label_map(ensemble):
    configs = [Config.load(run) for run in ensemble]
    with pytest.raises(InputError, match="connected components"):
        has_label_map(configs, FLOAT32, PostProcessing(fill_holes=True), ExportOptions())
    larger = Config.from_preset("embedding", modalities=("t1",))
    with pytest.raises(InputError, match="crops of several sizes"):
        has_label_map([*configs, larger], FLOAT32, NO_STEPS, ExportOptions())


def test_label_maps_that_differ_are_refused(ensemble):
    predictors = load_ensemble(ensemble[:1])
    with pytest.raises(InputError, match="label map must be that of the networks"):
        compare_label_maps(lambda raw: np.ones(raw.shape[:3]), predictors, NO_STEPS, BRATS_2017)


def test_the_card_says_what_it_is(saved, ensemble, predictions, tmp_path):
    facts = json.loads((saved / "metadata.json").read_text())
    assert facts["labels"] == {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 4}
    assert (facts["channels"], facts["orientation"]) == (["flair", "t1ce"], "PLS")
    assert facts["scores"]["cases"] == 1
    assert [one["training_cases"] for one in facts["networks"]] == [3, 3]
    assert facts["sha256"]["saved_model.pb"] == sha256_of(saved / "saved_model.pb")
    assert facts["compared"]["voxels_different"] <= 1e-4 * facts["compared"]["voxels"]
    assert str(ensemble[0].parent) not in json.dumps(facts)
    card = (saved / "model_card.md").read_text()
    for words in ("Mean over 1 case(s)", "not a medical device", "flair, t1ce", "4 enhancing", "Apache-2.0"):
        assert words in card
    with pytest.raises(InputError, match="must hold the scores of flair with these weights"):
        export_networks(
            ensemble[:1], out=tmp_path / "other", options=ExportOptions(results=str(predictions / "results"))
        )


def test_scores_of_predictions_that_were_made_otherwise_do_not_enter_the_card(saved, predictions, tmp_path):
    facts = json.loads((saved / "metadata.json").read_text())
    shutil.copytree(predictions / "results", tmp_path / "results")
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert read_results(tmp_path / "results", facts)["cases"] == 1
    for change, received in (
        ({"forward": {"precision": "bfloat16", "mirror": "none"}}, "Received: {'precision': 'bfloat16'"),
        ({"forward": {"precision": "float32", "mirror": "all"}}, "'mirror': 'all'"),
        ({"postprocessing": facts["postprocessing"] | {"drop_et_below_ml": 1.0}}, "'drop_et_below_ml': 1.0"),
        ({"forward": None}, "Received: None"),
    ):
        other = summary | {"made_by": summary["made_by"] | change}
        (tmp_path / "results" / "summary.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=f"as the export makes them, with .*{re.escape(received)}"):
            read_results(tmp_path / "results", facts)
    (tmp_path / "results" / "summary.json").write_text(json.dumps(summary | {"made_by": {}}))
    with pytest.raises(InputError, match="Received those of unknown networks"):
        read_results(tmp_path / "results", facts)


@pytest.mark.large
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_full_size_label_maps_of_real_cases_are_those_of_predict(precision, real_data, tmp_path):
    forward = ForwardOptions(precision=precision)
    run = written(tmp_path / "run", "embedding-plus", crop=(192, 160, 144), backbone="efficientnetb0")
    export_networks([run], out=tmp_path / "saved", forward=forward, options=ExportOptions(convention="brats2023"))
    model = tf.saved_model.load(tmp_path / "saved")
    for case in find_cases(real_data / "native")[0][:2]:  # From sub-Saharan Africa, labelled as in 2023.
        labels = model.label_map(raw(case, ("flair", "t1", "t1ce", "t2")))["labels"].numpy()
        out, options = tmp_path / "predictions", PredictionOptions(save_probabilities=True)
        predict_cases(load_ensemble([run], forward=forward), [case], out=out, options=options)
        image = nib.load(out / "probabilities" / f"{case.id}.nii.gz")
        # Another graph of the same network may round otherwise, by 1e-6, which decides on the threshold itself.
        certain = np.all(np.abs(image.get_fdata() - 0.5) > 1e-5, axis=-1)
        assert certain.mean() > 0.9999
        certain = orient(certain, image.affine)
        np.testing.assert_array_equal(labels[certain], labels_in(out, case)[certain])
