"""Networks of several systems on the same packed cases: the recipe, the arrays, and the scores."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import packed_cases
import pytest
import real_case_tables
import real_cases as experiment
import real_networks
import real_scores
import results_files
from recipes import Recipe, shuffled
from repository import REPOSITORY
from tf_training import TfTraining

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.models.build import build_with_weights
from brats_tf.regions import MODALITIES

CROPPED = {"crop": (32, 32, 24), "spacing_mm": 6.0}


@pytest.fixture
def given(phantom_folder, others, tmp_path):
    given = argparse.Namespace(training=others, validation=phantom_folder, folder=tmp_path / "cases", **CROPPED)
    given.scored = [phantom_folder]
    given.networks, given.results, given.name = tmp_path / "networks", tmp_path / "results", "real_cases"
    experiment.pack(given)
    given.networks.mkdir()
    return given


def test_packed_volumes_are_those_of_the_cases_to_an_eighth_of_a_deviation(given, phantoms):
    from brats_tf.preprocessing.preprocess import prepare_case

    volumes, classes, ids = packed_cases.unpack(given.folder, "validation")
    assert ids == [case.id for case in phantoms]
    prepared = prepare_case(phantoms[1], modalities=MODALITIES, with_truth=True, **CROPPED)
    inside = np.abs(prepared.volume) < 10
    assert np.abs(volumes[1].astype("float32") - prepared.volume)[inside].max() < 1 / 8
    np.testing.assert_array_equal(volumes[1] == 0, prepared.volume == 0)
    np.testing.assert_array_equal(classes[1], prepared.classes)


def write(given, variant, seed, maps, ids, **changes):
    facts = {"variant": variant, "seed": seed, "epochs": 1, "steps": 4, "learning_rate": 1e-3, "device": "some GPU"}
    facts |= {"validation_cases": ids, "cases": 4, "versions": {"torch": "0"}, "seconds_a_step": 0.5, "commit": "c"}
    facts |= CROPPED | {"networks": [{"seconds_a_step": 0.5}]}
    np.savez(given.networks / f"{variant}-{seed}.npz", facts=json.dumps(facts | changes), **maps)


def test_scores_are_those_of_the_whole_files(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    write(given, "segresnet", 0, {"normal": classes, "mirrored": 0 * classes}, ids)
    write(given, "segresnet", 1, {"normal": classes, "mirrored": classes}, ids)
    experiment.score(given)
    found = json.loads((given.results / "real_cases.json").read_text())
    (row,) = found["rows"]
    assert row["training_minutes"] == pytest.approx(4 * 0.5 / 60)
    assert row["seeds"] == [0, 1] and found["runs"][0]["versions"] == {"torch": "0"}
    ceiling = np.mean(found["ceiling"]["dice"]["WT"])
    assert 0.6 < ceiling <= 1  # 1: the voxels of these cases are as large.
    assert row["dice"]["normal"]["WT"]["mean"] == pytest.approx(ceiling)
    assert row["dice"]["mirrored"]["WT"]["mean"] == pytest.approx(ceiling / 2)


@pytest.mark.slow
def test_a_results_file_is_continued(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    write(given, "segresnet", 0, {"normal": classes}, ids)
    write(given, "plus", 0, {"normal": 0 * classes}, ids)
    experiment.score(given)
    first = json.loads((given.results / "real_cases.json").read_text())
    (given.networks / "segresnet-0.npz").unlink()
    write(given, "plus", 0, {"normal": classes}, ids, device="another GPU", versions={"jax": "1"})
    experiment.score(given)
    second = json.loads((given.results / "real_cases.json").read_text())
    assert [one for one in second["runs"] if one["variant"] == "segresnet"] == first["runs"][1:]
    assert [one["versions"] for one in second["runs"]] == [{"torch": "0"}, {"jax": "1"}]
    assert second["machine"] == "another GPU and some GPU"
    (row,) = (row for row in second["rows"] if row["variant"] == "plus")
    assert row["device"] == "another GPU" and row["dice"]["normal"]["WT"]["mean"] > 0.6
    assert second["differences"][0]["second"] == "segresnet" and second["differences"][0]["dice"]["WT"]["mean"] == 0
    write(given, "plus", 0, {"normal": classes}, ids, cases=5)
    with pytest.raises(InputError, match="must be of the same settings to be continued.*Received: cases"):
        experiment.score(given)


@pytest.mark.slow
def test_networks_of_several_lengths_keep_their_names_apart(given, monkeypatch):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    write(given, "plus", 0, {"normal": classes, "blinded": classes}, ids)
    experiment.score(given)
    for epochs, rate in ((2, 1e-3), (1, 3e-4)):
        (given.networks / "segresnet-0.npz").unlink(missing_ok=True)
        write(given, "segresnet", 0, {"normal": classes}, ids, epochs=epochs, learning_rate=rate)
        experiment.score(given)
    monkeypatch.setattr(results_files, "FOLDER", given.results.parent)
    lines = real_case_tables._differences("real_cases")
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| `embedding-plus`", "MONAI's SegResNet, 2 epochs at 0.001"],
        ["| `embedding-plus`", "MONAI's SegResNet, 1 epochs at 0.0003"],
        ["| `embedding-plus`", "the same, blinded"],
    ]


def test_each_case_is_predicted_once_and_never_by_a_network_that_trained_on_it(given):
    cases = packed_cases.of_folds(given.folder, 3)
    assert sorted(index for one in cases for index in one.validation) == list(range(8))
    for one in cases:
        assert sorted([*one.training, *one.validation]) == list(range(8))
        assert one.steps == 5 and one.volumes.shape == (8, *CROPPED["crop"], 4)
    assert cases[1].ids_of("validation") == [cases[1].ids[index] for index in (1, 4, 7)]
    (second,) = packed_cases.of_folds(given.folder, 3, [2])
    assert second.fold == (1, 3) and second.ids_of("validation") == cases[1].ids_of("validation")
    for fold, folds in ((1, 1), (4, 3), (0, 3)):
        with pytest.raises(InputError, match=rf"--folds must be 2 or more.*Received: {folds} and \[{fold}\]"):
            packed_cases.of_folds(given.folder, folds, [fold])
    (whole,) = packed_cases.of_folds(given.folder, 0)
    assert whole.ids_of("training") == whole.ids[:4] and whole.ids_of("validation") == whole.ids[4:]
    assert whole.steps == 4


def test_all_folds_are_scored_together_in_the_order_of_the_cases(given, capsys):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    for fold, its in enumerate(([0, 2], [1, 3])):
        names = [ids[index] for index in its]
        others = {"fold": [fold, 2], "training_cases": [one for one in ids if one not in names], "epochs": 1}
        write(given, "plus", 0, {"normal": classes[its]}, names, **others)
        (given.networks / "plus-0.npz").rename(given.networks / f"plus-0-fold{fold}.npz")
        if not fold:
            write(given, "segresnet", 0, {"normal": classes[its]}, names, **others)
    experiment.score(given)
    assert "Left out: segresnet-0 and others of its training, which has 1 of 2 folds." in capsys.readouterr().out
    found = json.loads((given.results / "real_cases.json").read_text())
    (run,) = found["runs"]
    assert found["folds"] == 2 and run["normal"]["dice"] == found["ceiling"]["dice"]
    assert run["training_cases"] == found["validation_cases"] == ids
    (given.networks / "plus-0-fold1.npz").unlink()
    with pytest.raises(InputError, match="No training in .* has all its folds"):
        experiment.score(given)


def test_label_maps_of_other_cases_are_refused(given):
    with pytest.raises(InputError, match=r"no \.npz"):
        experiment.score(given)
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    write(given, "plus", 0, {"normal": classes}, ids[::-1])
    with pytest.raises(InputError, match="label maps of Phantom_004.* Expected .*: Phantom_001"):
        experiment.score(given)


@pytest.mark.slow
def test_networks_are_compared_by_the_seeds_that_both_have(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    empty = 0 * classes
    for seed, maps in enumerate([classes, empty]):
        write(given, "plus", seed, {"normal": maps, "blinded": empty}, ids)
    write(given, "segresnet", 1, {"normal": classes}, ids)
    write(given, "nnunet", 5, {"normal": classes}, ids)
    experiment.score(given)
    found = json.loads((given.results / "real_cases.json").read_text())
    (one,) = found["differences"]
    ceiling = np.mean(found["ceiling"]["dice"]["WT"])
    assert (one["first"], one["second"], one["seeds"]) == ("plus", "segresnet", [1])
    assert one["dice"]["WT"]["mean"] == pytest.approx(-ceiling)
    (row,) = (row for row in found["rows"] if row["variant"] == "plus")
    assert row["unblinded_minus_blinded"]["WT"]["mean"] == pytest.approx(ceiling / 2)


def test_label_maps_of_another_spacing_are_refused(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    write(given, "plus", 0, {"normal": classes}, ids)
    write(given, "plus", 1, {"normal": classes}, ids, spacing_mm=3.0)
    with pytest.raises(InputError, match=r"plus-1.npz must be of the crop.* 6.0\), 4\. Received: .*3\.0"):
        experiment.score(given)


@pytest.mark.large
def test_the_steps_of_the_recipe_are_taken(given):
    volumes, classes, _ = packed_cases.unpack(given.folder, "training")
    settings = CROPPED | {"augmentation": "none", "backbone": "tiny", "weights": "none"}
    config = Config.from_preset("embedding-plus", modalities=MODALITIES, **settings)
    keras.utils.set_random_seed(0)
    recipe = Recipe(None, "regions", steps=12, learning_rate=3e-3, warmup=2, mirror=(0, 1, 2), brightness=True)
    training = TfTraining(build_with_weights(config)[0], config, recipe)
    curves = training.run(volumes, classes, shuffled(len(volumes), 12, seed=0))
    assert curves["dice"].shape == (12, 3) and curves["planes_live"][2:].min() > 0.9
    assert curves["loss"][-4:].mean() < curves["loss"][:4].mean() - 0.05
    assert float(training.rate(0)) == 0 and float(training.rate(2)) == pytest.approx(3e-3)
    normal, blind = training.predict(volumes[:1]), training.predict(volumes[:1], blind=True)
    assert normal.shape == (1, 32, 32, 24, 3) and not np.allclose(normal, blind)


@pytest.mark.slow
def test_a_fixed_classifier_does_not_learn(given):
    volumes, classes, _ = packed_cases.unpack(given.folder, "training")
    settings = CROPPED | {"augmentation": "none", "backbone": "tiny", "weights": "none"}
    config = Config.from_preset("embedding-plus", modalities=MODALITIES, **settings)
    network = build_with_weights(config)[0]
    before = [weight.numpy() for weight in network.weights]
    TfTraining(network, config, Recipe(None, "regions", steps=2, classifier_rate=0.0)).run(volumes, classes, [0, 1])
    inside = {id(weight) for weight in network.get_layer("tiny").weights}
    for weight, value in zip(network.weights, before, strict=True):
        if id(weight) in inside or weight.path.endswith("kernel"):
            assert np.array_equal(weight.numpy(), value) == (id(weight) in inside), weight.path


def test_augmentation_keeps_volume_and_classes_together(given):
    volumes, classes, _ = packed_cases.unpack(given.folder, "training")
    recipe = Recipe(None, "regions", steps=9, mirror=(0, 1, 2), modality_dropout=1.0)
    training = object.__new__(TfTraining)
    training.recipe, training.random = recipe, np.random.default_rng(0)
    missing, mirrored = set(), 0
    for _ in range(20):
        volume, labels = training._augmented(volumes[0].astype("float32"), classes[0])
        (empty,) = np.flatnonzero(~volume.any(axis=(0, 1, 2)))
        missing.add(int(empty))
        mirrored += not np.array_equal(labels, classes[0])
        other = (empty + 1) % 4
        found, expected = (
            np.sort(one[..., other][mask > 0]) for one, mask in ((volume, labels), (volumes[0], classes[0]))
        )
        np.testing.assert_array_equal(found, expected.astype("float32"))
    assert missing == {0, 1, 2, 3} and 10 < mirrored < 20


def test_what_jax_does_not_do_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="nnunet-like needs KERAS_BACKEND=tensorflow"):
        real_networks.make_training("nnunet-augmentation", MODALITIES, 0, {"steps": 1}, CROPPED)


def test_cases_packed_of_another_folder_are_not_trained_on(given, phantom_folder, others, tmp_path):
    folders = {"training": others, "validation": phantom_folder}
    packed_cases.check(folders, given.folder, **CROPPED)
    with pytest.raises(InputError, match=r"cases packed with spacing_mm 6.0 instead of 3.0: name another"):
        packed_cases.check(folders, given.folder, **CROPPED | {"spacing_mm": 3.0})
    shutil.copytree(others / "Other_001", tmp_path / "fewer" / "Other_001")
    with pytest.raises(InputError, match=r"packed with training \['Other_001', .*\] instead of \['Other_001'\]: name"):
        packed_cases.check(folders | {"training": tmp_path / "fewer"}, given.folder, **CROPPED)


def test_a_case_does_not_train_and_validate(given, phantom_folder):
    given.training = phantom_folder
    with pytest.raises(InputError, match="must hold different patients. Received in both: Phantom_001, "):
        experiment.pack(given)
    with pytest.raises(InputError, match="must hold different patients"):
        packed_cases.check(dict.fromkeys(packed_cases.PARTS, phantom_folder), given.folder, **CROPPED)


def test_files_that_have_changed_since_they_were_packed_are_told_of(given, others, phantom_folder, tmp_path):
    changed = shutil.copytree(others, tmp_path / "changed")
    folders = {"training": changed, "validation": phantom_folder}
    packed_cases.pack(folders, given.folder, **CROPPED)
    packed_cases.check(folders, given.folder, **CROPPED)
    os.utime(next(changed.glob("*/*_seg.nii.gz")), (1, 1))
    with pytest.raises(InputError, match="holds cases whose files have changed since, of training: name another"):
        packed_cases.check(folders, given.folder, **CROPPED)


def test_damaged_arrays_are_a_sentence(given):
    with open(given.folder / "training.npz", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="training.npz must be what `pack` wrote: .*Remove it, to pack it again"):
        packed_cases.cropped(given.folder)


def test_a_damaged_byte_within_an_array_is_a_sentence_and_a_missing_folder_is_none_of_damage(given):
    content = bytearray((given.folder / "training.npz").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4] = b"\xff\xff\xff\xff"
    (given.folder / "training.npz").write_bytes(content)
    with pytest.raises(InputError, match="training.npz must be what `pack` wrote"):
        packed_cases.unpack(given.folder, "training")
    with pytest.raises(FileNotFoundError):
        packed_cases.cropped(given.folder / "elsewhere")


def test_the_steps_of_a_variant_are_measured_once(given, monkeypatch):
    measured, trained = [], []

    def train_variant(given, variant, seed, *others):
        trained.append(given.steps[variant])
        return {"seconds_a_step": 1.0, "curves": {"dice": [0]}}, {}

    monkeypatch.setattr(experiment, "steps_of", lambda given, variant, cases: measured.append(variant) or 8)
    monkeypatch.setattr(experiment, "train_variant", train_variant)
    given.variants, given.seeds, given.minutes, given.epochs, given.learning_rate = ["plus"], 3, 5.0, None, 1e-3
    given.until, given.commit, given.folds, given.fold, given.kinds = float("inf"), "c", 2, None, real_scores.KINDS
    given.out = given.networks
    experiment.train(given)
    assert measured == ["plus"] and trained == [8] * 6


def test_a_run_is_refused_before_it_trains_what_its_results_file_does_not_take(given, monkeypatch):
    given.out, given.folds, trained = given.folder.parent, 0, []
    given.results.mkdir()
    (given.results / "real_cases.json").write_text(json.dumps({"crop": "64x64x24", "runs": []}))
    monkeypatch.setattr(experiment, "train", trained.append)
    with pytest.raises(InputError, match="must be of the same settings to be continued.*crop 32x32x24, there 64x64x24"):
        experiment.run(given)
    assert not trained


@pytest.mark.parametrize(
    "words", [["--minutes", "0"], ["--epochs", "0"], ["--epochs", "-1"], ["--seeds", "0"], ["--minutes", "nan"]]
)
def test_lengths_of_nothing_are_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        experiment.main(["train", "folder", *words])
    assert "1 or more" in (said := capsys.readouterr().err) or "above 0" in said


def test_surfaces_are_measured_in_the_millimetres_of_the_file(phantoms):
    scorer = packed_cases.CaseScorer(phantoms[:1], **CROPPED)
    moved = np.roll(scorer.prepared[0].classes, 1, axis=0)
    found = scorer.scores([moved], distances=True)["hd95_mm"]["WT"][0]
    assert found == pytest.approx(6.0, rel=0.5)  # One voxel.


@pytest.mark.skipif(find_spec("monai") is None, reason="needs the extra `bench`")  # Importing it here would crash.
@pytest.mark.slow
def test_libraries_that_import_tensorflow_leave_it_as_this_package_wants_it():
    program = (
        "import argparse, os, real_cases\n"
        "given = argparse.Namespace(variants=['plus', 'segresnet'], cropped={'crop': (64, 64, 48)})\n"
        "real_cases._import_libraries(given)\n"
        "import tensorflow as tf\n"
        "assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == '1'\n"
        "assert tf.config.threading.get_inter_op_parallelism_threads() == 1\n"
    )
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}  # Not TensorFlow's.
    path = {"PYTHONPATH": f"{REPOSITORY / 'experiments'}{os.pathsep}{REPOSITORY}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment | path, cwd=REPOSITORY)


def test_networks_trained_on_other_cases_are_not_compared(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    for variant, cases in (("plus", ids), ("segresnet", ids[::-1])):
        write(given, variant, 0, {"normal": classes}, ids, training_cases=cases)
    with pytest.raises(InputError, match=r"trained on the same cases: Phantom_001.*\(plus\). Received: Phantom_004"):
        experiment.score(given)
    (given.networks / "segresnet-0.npz").rename(given.networks.parent / "kept.npz")
    experiment.score(given)
    (given.networks / "plus-0.npz").unlink()
    (given.networks.parent / "kept.npz").rename(given.networks / "segresnet-0.npz")
    with pytest.raises(InputError, match="trained on the same cases"):  # As those that the results file holds.
        experiment.score(given)


def test_seeds_of_one_row_are_trained_alike(given):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    for seed, precision in enumerate(("float32", "bfloat16")):
        write(given, "plus", seed, {"normal": classes}, ids, networks=[{"precision": precision}])
    with pytest.raises(
        InputError, match="All seeds of plus must have the same precision. Received: bfloat16 and float32"
    ):
        experiment.score(given)


def test_networks_of_other_volumes_in_the_same_folder_are_refused(tmp_path):
    path = tmp_path / "plus-1-0.001-0.npz"
    np.savez_compressed(path, facts=json.dumps({"crop": "32x32x24", "spacing_mm": 6.0}))
    real_scores.check_trained_alike(path, {"crop": "32x32x24", "training_cases": ["a"]})
    with pytest.raises(InputError, match="was trained with other crop: name another folder with --out"):
        real_scores.check_trained_alike(path, {"crop": "64x64x24"})


def test_every_variant_is_a_config():
    for variant in (*real_networks.PLUS, *real_networks.PAPERS):
        config, differences = real_networks.config_of(variant, MODALITIES, CROPPED | {"precision": "float32"})
        assert config.input_shape == (*CROPPED["crop"], 4)
        Recipe(**{"loss": None, "outputs": "regions", "steps": 1} | differences)


@pytest.mark.large
def test_trainings_are_written_once_and_scored(given, monkeypatch):
    monkeypatch.setitem(real_networks.PLUS, "plus", ({"backbone": "tiny", "weights": "none"}, {}))
    given.variants, given.seeds, given.epochs, given.learning_rate = ["plus"], 1, 2, 1e-3
    given.until, given.commit, given.folds, given.fold, given.kinds = float("inf"), "c", 0, None, real_scores.KINDS
    given.out, given.minutes = given.networks.parent, None
    experiment.run(given)
    (path,) = given.networks.glob("*.npz")
    written = path.stat().st_mtime_ns
    given.out = given.networks.parent
    experiment.run(given)
    assert path.stat().st_mtime_ns == written
    (row,) = json.loads((given.results / "real_cases.json").read_text())["rows"]
    assert set(row["dice"]) == set(real_scores.KINDS)


def test_a_crop_that_a_peer_cannot_halve_is_refused():
    with pytest.raises(InputError, match="--crop must be multiples of 32 for nnunet. Received: 96x96x72"):
        real_networks.make_training("nnunet", MODALITIES, 0, {}, {"crop": (96, 96, 72)})


@pytest.mark.slow
def test_albunet_is_trained_and_scored_on_whole_volumes(given):
    given.variants, given.seeds, given.epochs, given.learning_rate = ["albunet3d-random"], 1, 1, 1e-3
    given.until, given.commit, given.folds, given.fold, given.kinds = float("inf"), "c", 0, None, real_scores.KINDS
    given.out, given.minutes = given.networks, None
    experiment.train(given)
    experiment.score(given)
    (run,) = json.loads((given.results / "real_cases.json").read_text())["runs"]
    assert run["networks"][0]["outputs"] == "classes"
    assert {len(run[kind]["dice"]["WT"]) for kind in ("normal", "without-t1")} == {4}


@pytest.mark.large
def test_a_training_of_minutes_takes_about_so_long(given, monkeypatch):
    monkeypatch.setitem(real_networks.PLUS, "plus", ({"backbone": "tiny", "weights": "none"}, {}))
    given.variants, given.seeds, given.minutes, given.learning_rate = ["plus"], 1, 0.5, 1e-3
    given.until, given.commit, given.folds, given.fold, given.kinds = float("inf"), "c", 0, None, real_scores.KINDS
    given.out, given.epochs = given.networks, None
    experiment.train(given)
    (path,) = given.networks.glob("plus-0.5min-*.npz")
    facts = json.loads(str(np.load(path)["facts"]))
    assert facts["minutes"] == 0.5 and 10 < facts["steps"] * facts["seconds_a_step"] < 45
    given.minutes, given.networks = 0.001, given.networks / "others"
    with pytest.raises(InputError, match="--minutes must be enough for each of .* cases twice"):
        experiment.train(argparse.Namespace(**vars(given) | {"out": given.networks}))


def test_a_variant_is_compared_with_what_it_replaces(given, monkeypatch):
    _, classes, ids = packed_cases.unpack(given.folder, "validation")
    for variant in ("plus", "full-size", "random-full-rate"):
        write(given, variant, 0, {"normal": 0 * classes}, ids)
    for variant in ("no-detail", "random-convnext_tiny"):
        write(given, variant, 0, {"normal": classes}, ids)
    experiment.score(given)
    found = json.loads((given.results / "real_cases.json").read_text())
    monkeypatch.setattr(real_case_tables, "read", {"real_cases-parts": found}.get)
    lines = [line.split(" | ") for line in real_case_tables.real_cases_parts() if line.startswith("| ")][2:]
    differences = {line[0][2:]: line[-1] for line in lines}
    better = [title for title, difference in differences.items() if difference.startswith(("8", "9"))]
    assert better == ["detail: none", "classifier: ConvNeXt-Tiny, random weights, full rate"]
    assert [title for title, difference in differences.items() if difference.startswith("0.0 (0.0 to 0.0)")] == [
        "detail and head: 16 channels and a residual block at full size",
        "classifier: random weights, full rate",
    ]


def test_scans_of_a_patient_are_in_one_fold():
    ids = ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000", "BraTS-GLI-00001-001", "BraTS20_Training_001"]
    folds = packed_cases._fold_of(ids, 2).tolist()
    assert folds == [0, 1, 0, 0]
    assert packed_cases.steps_of_epoch({"training": ids[:2], "validation": ids[2:]}, 2) == 1
    assert packed_cases.steps_of_epoch({"training": ids[:3], "validation": ids[3:]}, 0) == 3
