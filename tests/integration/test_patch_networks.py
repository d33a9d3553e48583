"""The AlbuNet paper through training and prediction: patches, accumulation, sliding windows, a T1 that is missing."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_SPACING_MM

from brats_tf.config.config import Config
from brats_tf.config.execution import PredictionOptions
from brats_tf.config.presets import SUBSETS
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import score_case
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.inference.ensemble import load_ensemble, read_case
from brats_tf.inference.predict import predict_cases
from brats_tf.models.build import build_network, build_with_weights
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import MODALITIES
from brats_tf.runs.history import read_validation
from brats_tf.runs.network import explain_lack_of_memory
from brats_tf.training import announcement
from brats_tf.training.optimisation import compile_network
from brats_tf.training.train import train

SMALL = {"crop": (40, 40, 26), "patch_size": (32, 32, 4), "window_stride": (16, 16, 4), "weights": "none"}
assert TINY_SPACING_MM == 6  # Phantoms of 40x40x26 voxels, which the crop takes whole.


def saved(folder, preset="albunet3d", **changes):
    config = Config.from_preset(preset, **(SMALL | changes))
    run = folder / config.run_name
    run.mkdir()
    config.save(run)
    build_network(config).save_weights(run / "network.weights.h5")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("runs"))


def probabilities_of(folder, case):
    return nib.load(folder / "probabilities" / f"{case.id}.nii.gz").get_fdata()


def test_a_whole_volume_is_predicted_in_windows_and_labelled_by_its_likeliest_class(run, phantoms, tmp_path):
    (member,) = load_ensemble([run])
    predict_cases([member], phantoms[:1], out=tmp_path, options=PredictionOptions(save_probabilities=True))
    facts = json.loads((tmp_path / "prediction.json").read_text())["cases"][phantoms[0].id]
    assert facts["outputs"] == "classes"  # What `restore` decides by.
    whole = prepare_case(phantoms[0], modalities=member.config.data.modalities, crop=None, with_truth=False)
    assert whole.volume.shape == (40, 40, 26, 3)
    classes = member.predict(whole.volume)
    np.testing.assert_allclose(classes.sum(axis=-1), 1, rtol=1e-5)
    # The likeliest class, in the file's axes and in the numbers of BraTS 2020.
    expected = np.array([0, 1, 2, 4])[whole.to_file_axes(classes.argmax(axis=-1))]
    written = nib.load(tmp_path / f"{phantoms[0].id}.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), expected)
    wt = whole.to_file_axes(classes[..., 1:].sum(axis=-1))
    np.testing.assert_allclose(probabilities_of(tmp_path, phantoms[0])[..., 0], wt, atol=1e-5)


def test_windows_lie_as_far_apart_as_the_stride_says(run):
    (member,) = load_ensemble([run])
    seen = []
    spied = lambda weights, patches: seen.append(len(patches)) or member.run_network(weights, patches)  # noqa: E731
    counts = {}
    for stride in (32, 16, 8):
        config = member.config.replace(window_stride=(stride, stride, 4))
        seen.clear()
        dataclasses.replace(member, run_network=spied, config=config).predict(np.ones((48, 48, 4, 3), np.float32))
        counts[stride] = sum(seen)
    assert counts == {32: 4, 16: 4, 8: 9}


def test_a_voxel_of_four_windows_has_their_mean(run, phantoms):
    (member,) = load_ensemble([run])
    volume = np.random.default_rng(0).standard_normal((48, 48, 4, 3)).astype(np.float32)
    got = member.predict(volume)
    corners = [(h, w) for h in (0, 16) for w in (0, 16)]
    windows = np.stack([volume[h : h + 32, w : w + 32] for h, w in corners])
    parts = member.run_network(member.weights, windows)
    expected = np.mean([part[20 - h, 20 - w] for part, (h, w) in zip(parts, corners, strict=True)], axis=0)
    np.testing.assert_allclose(got[20, 20], expected, atol=1e-6)
    logits = dataclasses.replace(member, config=member.config.replace(window_average="logits"))
    mean = np.exp(np.mean([np.log(part[20 - h, 20 - w]) for part, (h, w) in zip(parts, corners, strict=True)], axis=0))
    np.testing.assert_allclose(logits.predict(volume)[20, 20], mean / mean.sum(axis=-1, keepdims=True), atol=1e-5)


def test_windows_are_averaged_and_weighted_as_the_settings_say(run):
    """By a network that is sure of class 3 in the window at the first corner, and of class 0 in the others."""
    (member,) = load_ensemble([run])
    volume = np.ones((48, 48, 4, 3), np.float32)
    volume[0, 0] = 2
    sure = np.array([[0.97, 0.01, 0.01, 0.01], [0.001, 0.001, 0.001, 0.997]], np.float32)

    def network(weights, patches):
        return np.stack([np.broadcast_to(sure[int(one[0, 0, 0, 0]) - 1], (*one.shape[:3], 4)) for one in patches])

    found = {}
    for average, weighting in (("probabilities", "uniform"), ("logits", "uniform"), ("probabilities", "gaussian")):
        config = member.config.replace(window_average=average, window_weighting=weighting)
        one = dataclasses.replace(member, config=config, run_network=network)
        found[average, weighting] = one.predict(volume)[20, 20, 0]
    four = sure[[1, 0, 0, 0]]  # At (20, 20) four windows overlap.
    np.testing.assert_allclose(found["probabilities", "uniform"], four.mean(axis=0), atol=1e-6)
    geometric = np.exp(np.log(four).mean(axis=0))
    np.testing.assert_allclose(found["logits", "uniform"], geometric / geometric.sum(), atol=1e-5)
    assert abs(geometric / geometric.sum() - four.mean(axis=0)).max() > 0.05
    nearest = found["probabilities", "gaussian"][3]  # The first window's middle is the nearest.
    assert nearest > four.mean(axis=0)[3] + 0.1


def test_t1c_takes_the_place_of_a_t1_in_one_file_of_all_modalities_too(phantoms, tmp_path):
    (with_t1,) = load_ensemble([saved(tmp_path, modalities=("flair", "t1", "t2"))])
    images = [nib.load(phantoms[0].volumes[name]) for name in MODALITIES]
    stacked = nib.Nifti1Image(np.stack([np.asanyarray(one.dataobj) for one in images], axis=-1), images[0].affine)
    nib.save(stacked, tmp_path / "all.nii.gz")
    channels = {name: place for place, name in enumerate(MODALITIES) if name != "t1"}
    case = dataclasses.replace(phantoms[0], volumes=dict.fromkeys(channels, tmp_path / "all.nii.gz"), channels=channels)
    ready = read_case([with_t1], case)
    swapped = dataclasses.replace(phantoms[0], volumes=phantoms[0].volumes | {"t1": phantoms[0].volumes["t1ce"]})
    expected = read_case([with_t1], swapped)
    np.testing.assert_array_equal(ready.volume(("flair", "t1", "t2")), expected.volume(("flair", "t1", "t2")))


def test_t1c_takes_the_place_of_a_t1_that_no_network_can_do_without(phantoms, tmp_path, capsys):
    with_t1 = load_ensemble([saved(tmp_path, modalities=("flair", "t1", "t2"))])
    volumes = {name: path for name, path in phantoms[0].volumes.items() if name != "t1"}
    case = dataclasses.replace(phantoms[0], volumes=volumes)
    assert (
        predict_cases(with_t1, [case], out=tmp_path / "out", options=PredictionOptions(save_probabilities=True)) == []
    )
    said = capsys.readouterr().out
    assert f"Case {case.id}: t1 is missing; t1ce takes its place" in said and "predicted from" not in said
    swapped = dataclasses.replace(phantoms[0], volumes=phantoms[0].volumes | {"t1": phantoms[0].volumes["t1ce"]})
    predict_cases(with_t1, [swapped], out=tmp_path / "same", options=PredictionOptions(save_probabilities=True))
    np.testing.assert_array_equal(probabilities_of(tmp_path / "out", case), probabilities_of(tmp_path / "same", case))


@pytest.mark.slow
def test_the_subsets_serve_a_case_that_lacks_a_modality(phantoms, tmp_path, capsys):
    members = load_ensemble([saved(tmp_path, "albunet3d-subsets", modalities=subset) for subset in SUBSETS])
    volumes = {name: path for name, path in phantoms[0].volumes.items() if name != "t1"}
    case = dataclasses.replace(phantoms[0], volumes=volumes)
    predict_cases(members, [case], out=tmp_path / "out", options=PredictionOptions(save_probabilities=True))
    said = capsys.readouterr().out
    assert "t1 missing, predicted from flair, t1ce, t2." in said and "takes its place" not in said
    predict_cases(members[:1], [case], out=tmp_path / "one", options=PredictionOptions(save_probabilities=True))
    np.testing.assert_array_equal(probabilities_of(tmp_path / "out", case), probabilities_of(tmp_path / "one", case))


@pytest.mark.parametrize("missing", ["flair", "t1"])
@pytest.mark.slow
def test_a_network_that_has_learned_to_do_without_a_modality_does(missing, phantoms, tmp_path, capsys):
    tiny = {"backbone": "tiny", "crop": (32, 32, 24), "patch_size": None, "window_stride": None}
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    learned = load_ensemble([saved(tmp_path / "with", "embedding-plus", modality_dropout=0.2, **tiny)])
    others = load_ensemble([saved(tmp_path / "without", "embedding-plus", **tiny)])
    volumes = {name: path for name, path in phantoms[0].volumes.items() if name != missing}
    case = dataclasses.replace(phantoms[0], volumes=volumes)
    options = PredictionOptions(save_probabilities=True)
    assert predict_cases(learned, [case], out=tmp_path / "out", options=options) == []
    said = capsys.readouterr().out
    assert f"Case {case.id}: {missing} missing, predicted from" in said and "takes its place" not in said
    prepared = prepare_case(phantoms[0], modalities=MODALITIES, crop=(32, 32, 24), with_truth=False)
    prepared.volume[..., MODALITIES.index(missing)] = 0
    expected = prepared.to_file_axes(learned[0].predict(prepared.volume))
    np.testing.assert_allclose(probabilities_of(tmp_path / "out", case), expected, atol=1e-4)
    if missing == "flair":  # T1c takes the place of T1 in a network that has not learned it.
        ((_, sentence),) = predict_cases(others, [case], out=tmp_path / "none")
        assert "no network fits; expected flair, t1, t1ce, t2" in sentence
    two = dataclasses.replace(case, volumes={name: path for name, path in volumes.items() if name != "t2"})
    ((_, sentence),) = predict_cases(learned, [two], out=tmp_path / "two")
    assert "no network fits" in sentence


@pytest.mark.parametrize("preset", ["albunet3d", pytest.param("albunet2d", marks=pytest.mark.large)])
@pytest.mark.slow
def test_patches_train(preset, phantoms, tmp_path, untraced):
    depth = 4 if preset == "albunet3d" else 1
    short = {
        "patch_size": (32, 32, depth),
        "window_stride": (16, 16, depth),
        "batch_size": 2,
        "steps_per_epoch": 2,
        "epochs": 1,
    }
    config = Config.from_preset(preset, **(SMALL | short))
    (run,) = train([config], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    assert run.name == f"{preset}-flair-t1ce-t2"
    assert len((run / "history.csv").read_text().splitlines()) == 2
    (member,) = load_ensemble([run])
    assert np.isfinite(member.predict(np.ones((32, 32, 5, 3), np.float32))).all()


@pytest.mark.slow
def test_a_batch_that_may_not_fit_into_memory_is_announced_and_tried(phantoms, tmp_path, monkeypatch, capsys, untraced):
    monkeypatch.setattr(announcement, "memory_limit_gb", lambda: 1.0)
    config = Config.from_preset("albunet3d", **SMALL, batch_size=2, steps_per_epoch=1, epochs=1)
    train([config], phantoms[:1], runs=tmp_path, cache_dir=tmp_path / "cache")
    said = " ".join(capsys.readouterr().out.split())
    assert "has 1 GB, for 2 patches of 32x32x4 at once; try more --gradient-accumulation-steps" in said


def test_out_of_memory_names_what_to_change():
    for config, advice in (
        (
            Config.from_preset("albunet3d", gradient_accumulation_steps=6),
            "4 patches of 128x128x24 at once; try more --gradient",
        ),
        (
            Config.from_preset("embedding", modalities=("t1",)),
            "the crop 192x160x108; try --rematerialise, --precision bfloat16, a smaller --crop",
        ),
    ):
        with (
            pytest.raises(InputError, match=f"has too little memory for {advice}"),
            explain_lack_of_memory(config),
        ):
            raise MemoryError


@pytest.mark.slow
def test_whole_cases_are_validated_while_training(phantoms, tmp_path, untraced):
    short = {"batch_size": 1, "steps_per_epoch": 1, "epochs": 3, "validation_frequency": 2, "depth_layers": False}
    config = Config.from_preset("albunet3d", **(SMALL | short))
    (run,) = train([config], phantoms[:2], validation=phantoms[2:], runs=tmp_path, cache_dir=tmp_path / "cache")
    curves = read_validation(run)
    assert list(curves["ET"]) == [2, 3]  # Every second epoch, and the last.
    # The last row is what prediction and evaluation say of the run.
    predict_cases(load_ensemble([run]), phantoms[2:], out=tmp_path / "p")
    for region in ("WT", "TC", "ET"):
        expected = [score_case(case, LabelMaps(tmp_path / "p"))[region]["dice"] for case in phantoms[2:]]
        assert curves[region][3] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "validation", "sentence"),
    [
        ({"validation_frequency": 1}, None, "--validation-frequency needs cases to validate on"),
        (
            {"validation_frequency": 1},
            slice(0, 1),
            "Patients must not train and validate. Received in both: Phantom_001",
        ),
        ({}, slice(2, 4), "Validation cases need --validation-frequency"),
    ],
)
def test_validation_without_sense_is_refused(phantoms, tmp_path, changes, validation, sentence):
    config = Config.from_preset("albunet3d", **SMALL, **changes)
    with pytest.raises(InputError, match=sentence):
        train(
            [config],
            phantoms[:2],
            validation=validation and phantoms[validation],
            runs=tmp_path,
            cache_dir=tmp_path / "cache",
        )


def test_accumulated_parts_change_the_weights_once_a_batch():
    config = Config.from_preset("albunet3d", **SMALL, batch_size=2, gradient_accumulation_steps=2, depth_layers=False)
    network, _ = build_with_weights(config)
    for layer in network.layers:
        layer.trainable = layer.name == "classes_conv"  # Without batch norm in the way, a part's gradient is its own.
    compile_network(network, config)
    network.run_eagerly = True
    random = np.random.default_rng(0)
    volume = random.standard_normal((1, 32, 32, 4, 3)).astype(np.float32)
    target = np.eye(4, dtype=np.float32)[random.integers(0, 4, (1, 32, 32, 4))]
    start = network.get_layer("classes_conv").get_weights()[0]
    network.train_on_batch(volume, target)
    np.testing.assert_array_equal(network.get_layer("classes_conv").get_weights()[0], start)
    network.train_on_batch(volume, target)
    assert np.abs(network.get_layer("classes_conv").get_weights()[0] - start).max() > 1e-4
