import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_CROP
from untrained_runs import untrained

from brats_tf.config.config import Config
from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import HYPHENED
from brats_tf.data.splits import Split
from brats_tf.errors import InputError, WriteError
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.inference import ensemble, predict
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.ensemble_prediction import EnsemblePrediction
from brats_tf.inference.predict import predict_cases
from brats_tf.inference.prediction_record import check_beside, read_prediction_record
from brats_tf.models.build import build_network
from brats_tf.models.outputs import to_regions
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import MODALITIES
from brats_tf.runs.network import load_network
from brats_tf.runtime.files import sha256_of
from brats_tf.runtime.lock import lock


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four one-modality networks with four seeds, and the authors' stacked one, all untrained."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)  # What rounding changes depends on the weights.
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none"}
    configs = [Config.from_preset("embedding", modalities=(name,), **settings) for name in MODALITIES]
    for config in [*configs, Config.from_preset("embedding-authors", **settings)]:
        run = folder / "-".join(config.data.modalities)
        run.mkdir()
        config.save(run)
        build_network(config).save_weights(run / "network.weights.h5")
    return folder


@pytest.fixture(scope="module")
def members(runs):
    return load_ensemble([runs / name for name in MODALITIES])


def test_the_ensemble_is_the_average_of_four_networks(runs, members, phantoms, tmp_path):
    predict_cases(members, phantoms[:1], out=tmp_path, options=PredictionOptions(save_probabilities=True))
    expected = 0
    for name in MODALITIES:
        _, network = load_network(runs / name)
        prepared = prepare_case(phantoms[0], modalities=(name,), crop=TINY_CROP, with_truth=False)
        expected = expected + network(prepared.volume[None], training=False).numpy()[0] / 4
    written = nib.load(tmp_path / "probabilities" / f"{phantoms[0].id}.nii.gz").get_fdata()
    assert written.shape == (40, 40, 26, 3)
    # The phantom's file runs L, P, S: first left-right, then front-back.
    centred = written[4:36, 4:36, 1:25].transpose(1, 0, 2, 3)
    np.testing.assert_allclose(centred, expected, atol=1e-5)
    outside = np.ones(written.shape, bool)
    outside[4:36, 4:36, 1:25] = False
    assert not written[outside].any()


def test_the_label_map_is_the_thresholded_average_in_the_geometry_of_the_case(members, phantoms, tmp_path):
    predict_cases(members, phantoms[:1], out=tmp_path, options=PredictionOptions(save_probabilities=True))
    probabilities = nib.load(tmp_path / "probabilities" / f"{phantoms[0].id}.nii.gz").get_fdata()
    image = nib.load(tmp_path / f"{phantoms[0].id}.nii.gz")
    flair = nib.load(phantoms[0].volumes["flair"])
    np.testing.assert_array_equal(image.affine, flair.affine)
    assert (image.shape, image.get_data_dtype()) == (flair.shape, np.uint8)
    wt, tc, et = np.moveaxis(probabilities > 0.5, -1, 0)
    expected = np.where(et, 4, np.where(tc, 1, np.where(wt, 2, 0)))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected)
    assert (tmp_path / f"{phantoms[0].id}.nii.gz").is_file()


def test_the_convention_is_that_of_the_data(members, phantoms, tmp_path):
    folder = tmp_path / "data" / "case"
    folder.mkdir(parents=True)
    for modality, path in phantoms[0].volumes.items():
        shutil.copy(path, folder / HYPHENED.file_name("case", modality))
    predict_cases(members, find_cases(tmp_path / "data")[0], out=tmp_path / "new")
    predict_cases(members, phantoms[:1], out=tmp_path / "old")
    new, old = (np.asanyarray(nib.load(next((tmp_path / name).glob("*.nii.gz"))).dataobj) for name in ("new", "old"))
    assert 4 in old  # Untrained networks predict something of everything.
    np.testing.assert_array_equal(new, np.where(old == 4, 3, old))


@pytest.mark.slow
def test_a_case_with_a_missing_modality_is_predicted_from_the_rest_and_said_so(
    runs, members, damaged, tmp_path, capsys
):
    case = next(case for case in damaged if case.id == "no_flair")
    assert (
        predict_cases(members, [case], out=tmp_path / "three", options=PredictionOptions(save_probabilities=True)) == []
    )
    assert "Case no_flair: flair missing, predicted from t1, t1ce, t2." in capsys.readouterr().out
    predict_cases(
        load_ensemble([runs / name for name in ("t1", "t1ce", "t2")]),
        [case],
        out=tmp_path / "same",
        options=PredictionOptions(save_probabilities=True),
    )
    first, second = (
        nib.load(tmp_path / name / "probabilities" / "no_flair.nii.gz").get_fdata() for name in ("three", "same")
    )
    np.testing.assert_array_equal(first, second)


def drawn_anew(seed):
    """A function that changes all weights of a network, as a training does."""
    random = np.random.default_rng(seed)

    def change(network):
        drawn = [one + random.uniform(0, 0.01, one.shape).astype(one.dtype) for one in network.get_weights()]
        network.set_weights(drawn)

    return change


def test_keras_loads_the_first_of_networks_of_one_kind_alone(tmp_path, monkeypatch):
    runs = [
        untrained(tmp_path / name, modalities=(name,), change=drawn_anew(seed))
        for seed, name in enumerate(("flair", "t1", "t2"))
    ]
    loaded, load_weights = [], ensemble.load_weights
    monkeypatch.setattr(ensemble, "load_weights", lambda *given: loaded.append(given[1]) or load_weights(*given))
    members = load_ensemble(runs)
    assert loaded == runs[:1]
    for member, run in zip(members, runs, strict=True):
        assert member.weights_sha256 == sha256_of(run / "network.weights.h5")
        member.weights.assign_to(member.network)
        expected = load_network(run)[1].get_weights()
        assert all(map(np.array_equal, member.network.get_weights(), expected))
    content = (runs[1] / "network.weights.h5").read_bytes()
    place = content.index(b"TREE")
    (tmp_path / "bad").write_bytes(content[:place] + bytes(64) + content[place + 64 :])
    (tmp_path / "bad").replace(runs[1] / "network.weights.h5")
    with pytest.raises(InputError, match="t1/network.weights.h5 must hold the weights of the network"):
        load_ensemble(runs)


def test_disagreement_is_the_deviation_of_the_networks(members, phantoms, tmp_path):
    predict_cases(members, phantoms[:1], out=tmp_path, options=PredictionOptions(True, True))
    each = []
    for name, member in zip(MODALITIES, members, strict=True):
        prepared = prepare_case(phantoms[0], modalities=(name,), crop=TINY_CROP, with_truth=False)
        each.append(prepared.to_file_axes(member.predict(prepared.volume)))
    written, mean = (
        nib.load(tmp_path / kind / f"{phantoms[0].id}.nii.gz").get_fdata() for kind in ("uncertainty", "probabilities")
    )
    np.testing.assert_allclose(written, np.std(each, axis=0), atol=1e-3)
    assert 0 < written.max() <= 0.5
    told = json.loads((tmp_path / "prediction.json").read_text())["cases"][phantoms[0].id]
    assert told["networks"] == list(MODALITIES) and told["seconds"] > 0
    for i, region in enumerate(("WT", "TC", "ET")):
        expected = written[..., i][mean[..., i] > 0.05].mean()
        assert told["uncertainty"][region] == pytest.approx(expected, abs=1e-4)


def test_one_network_cannot_disagree(members, phantoms, tmp_path):
    with pytest.raises(InputError, match="Uncertainty needs at least two networks"):
        predict_cases(members[:1], phantoms[:1], out=tmp_path, options=PredictionOptions(save_uncertainty=True))
    predict_cases(members[:1], phantoms[:1], out=tmp_path)
    assert "uncertainty" not in json.loads((tmp_path / "prediction.json").read_text())["cases"][phantoms[0].id]


def test_steps_after_the_networks_are_recorded_and_off_unless_asked_for(runs, members, phantoms, tmp_path):
    predict_cases(members, phantoms[:1], out=tmp_path / "plain")
    steps = PostProcessing(drop_et_below_ml=5000)
    predict_cases(members, phantoms[:1], out=tmp_path / "dropped", postprocessing=steps)
    plain, dropped = (
        np.asanyarray(nib.load(tmp_path / name / f"{phantoms[0].id}.nii.gz").dataobj) for name in ("plain", "dropped")
    )
    np.testing.assert_array_equal(dropped, np.where(plain == 4, 1, plain))
    records = [json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("plain", "dropped")]
    assert not any(records[0]["postprocessing"].values())
    assert records[1]["postprocessing"]["drop_et_below_ml"] == 5000
    assert records[1]["cases"][phantoms[0].id]["voxels_changed"] == (plain == 4).sum() > 0
    weights = hashlib.sha256((runs / "flair" / "network.weights.h5").read_bytes()).hexdigest()
    assert records[0]["networks"]["flair"] == weights


@pytest.mark.slow
def test_a_second_part_of_the_cases_joins_the_record_of_the_same_networks(runs, members, phantoms, tmp_path):
    def recorded():
        return json.loads((tmp_path / "prediction.json").read_text())

    predict_cases(members[:1], phantoms[:1], out=tmp_path)
    predict_cases(members[:1], phantoms[1:2], out=tmp_path)
    assert list(recorded()["cases"]) == [case.id for case in phantoms[:2]]
    shutil.copytree(runs / "t2", tmp_path / "runs" / "flair.1")
    others = load_ensemble([runs / "flair", tmp_path / "runs" / "flair.1"])
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(InputError, match=r"holds predictions with other networks \(flair\): name another folder"):
        predict_cases(others, phantoms[1:2], out=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before
    predict_cases(others, phantoms[1:2], out=tmp_path, options=PredictionOptions(replace=True))
    assert not (tmp_path / f"{phantoms[0].id}.nii.gz").exists()  # What is not of this prediction is gone.
    assert list(recorded()["cases"]) == [phantoms[1].id]
    assert list(recorded()["networks"]) == recorded()["cases"][phantoms[1].id]["networks"] == ["flair", "flair.1"]


@pytest.mark.parametrize("where", ["ensemble.prepare_case", "ensemble.EnsemblePrediction.add", "predict.write_volume"])
def test_a_case_that_does_not_fit_into_memory_is_left_out_and_others_go_on(
    members, phantoms, tmp_path, monkeypatch, where
):
    calls, (module, *names) = [], where.split(".")
    place = {"ensemble": ensemble, "predict": predict}[module]
    place = getattr(place, names[0]) if len(names) == 2 else place
    real = getattr(place, names[-1])

    def scarce(*given, **named):
        calls.append(given)
        if len(calls) == 1:
            raise MemoryError("Unable to allocate 561. MiB")
        return real(*given, **named)

    monkeypatch.setattr(place, names[-1], scarce)
    ((case, sentence),) = predict_cases(members[:1], phantoms[:2], out=tmp_path)
    assert case == phantoms[0].id and sentence.startswith(f"Case {case}: ") and "memory" in sentence
    assert [path.name for path in tmp_path.glob("*.nii.gz")] == [f"{phantoms[1].id}.nii.gz"]


def test_the_estimate_of_memory_grows_with_the_files(members, phantoms, tmp_path):
    large = nib.Nifti1Image(np.zeros((400, 400, 400), np.uint8), np.eye(4))
    nib.save(large, tmp_path / "large_flair.nii.gz")
    case = dataclasses.replace(phantoms[0], volumes={"flair": tmp_path / "large_flair.nii.gz"})
    figures = [
        float(re.search(r"about ([\d.]+) GB", predict.first_line(members[:1], cases))[1]) for cases in ([], [case])
    ]
    assert figures[1] - figures[0] == pytest.approx(30 * 400**3 / 1e9, abs=0.1)


@pytest.mark.parametrize("monitor", ["loss", "validation"])
def test_cases_that_lowered_the_learning_rate_have_chosen_the_network(runs, tmp_path, monitor, monkeypatch):
    run = shutil.copytree(runs / "flair", tmp_path / "flair")
    given = {"plateau_monitor": monitor, "validation_frequency": 1, "validation_split": 0.5}
    Config.load(run).replace(**given).save(run)
    monkeypatch.setattr(ensemble, "read_run_record", lambda run: {"validation": ["Case_1"]})
    (member,) = load_ensemble([run])
    assert member.chosen_on == (("Case_1",) if monitor == "validation" else ())
    shutil.copyfile(run / "network.weights.h5", run / "best.weights.h5")
    (best,) = load_ensemble([run], "best")  # Which validation chose, whatever lowered the learning rate.
    assert best.chosen_on == ("Case_1",)


def test_a_case_that_trained_a_network_is_recorded(runs, phantoms, tmp_path):
    run = shutil.copytree(runs / "flair", tmp_path / "flair")
    Split("validation_split=0.5", 0, [phantoms[0].id], [phantoms[1].id]).save(run)
    predict_cases(load_ensemble([run]), phantoms[:2], out=tmp_path / "out")
    cases = json.loads((tmp_path / "out" / "prediction.json").read_text())["cases"]
    assert cases[phantoms[0].id]["trained"] == ["flair"] and not cases[phantoms[1].id].get("trained")


def test_a_record_that_lists_what_lies_beside_without_hashes_is_read(members, phantoms, tmp_path):
    options = PredictionOptions(save_probabilities=True)
    predict_cases(members[:1], phantoms[:1], out=tmp_path, options=options)
    record = json.loads((tmp_path / "prediction.json").read_text())
    record["cases"][phantoms[0].id]["beside"] = ["probabilities"]
    (tmp_path / "prediction.json").write_text(json.dumps(record))
    assert read_prediction_record(tmp_path)["cases"][phantoms[0].id]["beside"] == {"probabilities": ""}
    facts = read_prediction_record(tmp_path)["cases"][phantoms[0].id]
    check_beside(tmp_path / "probabilities" / f"{phantoms[0].id}.nii.gz", facts, case_id=phantoms[0].id)


def test_a_damaged_file_beside_a_label_map_is_predicted_again(members, phantoms, tmp_path):
    options = PredictionOptions(save_probabilities=True, resume=True)
    predict_cases(members[:1], phantoms[:2], out=tmp_path, options=options)
    damaged, kept = (tmp_path / "probabilities" / f"{case.id}.nii.gz" for case in phantoms[:2])
    content, time_before = damaged.read_bytes(), kept.stat().st_mtime_ns
    damaged.write_bytes(b"")
    predict_cases(members[:1], phantoms[:2], out=tmp_path, options=options)
    assert damaged.read_bytes() == content
    assert kept.stat().st_mtime_ns == time_before


def test_a_kill_while_predictions_are_replaced_leaves_none_unknown(runs, members, phantoms, tmp_path, monkeypatch):
    predict_cases(members[:1], phantoms[:2], out=tmp_path)

    remove = Path.unlink

    def killed(path, **how):
        if str(path).endswith(".nii.gz"):
            raise KeyboardInterrupt
        remove(path, **how)

    def predicting(ready):
        raise KeyboardInterrupt

    others, replace = load_ensemble([runs / "t2"]), PredictionOptions(replace=True)
    moments = (("pathlib.Path.unlink", killed), ("brats_tf.inference.predict.predict_case", predicting))
    for target, function in moments:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(target, function)
            predict_cases(others, phantoms[:1], out=tmp_path, options=replace)
        known = {*read_prediction_record(tmp_path)["cases"], *read_prediction_record(tmp_path)["pending"]}
        assert {path.name.removesuffix(".nii.gz") for path in tmp_path.glob("*.nii.gz")} <= known
    (tmp_path / f"{phantoms[0].id}.nii.gz").write_bytes(b"half of what the record says is pending")
    assert predict_cases(others, phantoms[:1], out=tmp_path, options=PredictionOptions(resume=True)) == []
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == [f"{phantoms[0].id}.nii.gz"]


def test_bad_cases_are_left_out_and_the_others_go_on(members, phantoms, damaged, tmp_path, capsys):
    truncated = [case for case in damaged if case.id == "truncated"]
    ((case_id, sentence),) = predict_cases(members, [*truncated, phantoms[0]], out=tmp_path / "out")
    assert case_id == "truncated"
    assert "truncated_flair.nii.gz is damaged or truncated" in sentence
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{phantoms[0].id}.nii.gz", "prediction.json"]
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["left_out"] == {"truncated": sentence}
    assert list(record["cases"]) == [phantoms[0].id]
    assert f"1 of 2 label maps written to {tmp_path / 'out'}" in capsys.readouterr().out


def test_a_stacked_network_needs_all_its_modalities(runs, damaged, phantoms, tmp_path, capsys):
    members = load_ensemble([runs / "flair-t1-t1ce-t2"])
    case = next(case for case in damaged if case.id == "no_flair")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "no_flair.nii.gz").write_text("of an earlier run")
    with pytest.raises(InputError, match=r"no_flair.nii.gz is not of a prediction that prediction.json records"):
        predict_cases(members, [case, phantoms[0]], out=tmp_path / "out")
    failures = predict_cases(
        members, [case, phantoms[0]], out=tmp_path / "out", options=PredictionOptions(replace=True)
    )
    said = capsys.readouterr().out
    assert "The label map from an earlier prediction was left in place." in said
    assert said.splitlines()[-1] == "Left out: no_flair."
    assert failures == [("no_flair", failures[0][1])]
    assert "no network fits; expected flair, t1, t1ce, t2 in" in failures[0][1]
    assert set(np.unique(nib.load(tmp_path / "out" / f"{phantoms[0].id}.nii.gz").get_fdata())) <= {0, 1, 2, 4}


def test_networks_of_different_crops_do_not_mix(runs, tmp_path):
    config = Config.from_preset("embedding", modalities=("t1",), crop=(32, 32, 36), backbone="tiny", weights="none")
    config.save(tmp_path)
    with pytest.raises(InputError, match="must share `crop`"):
        load_ensemble([runs / "flair", tmp_path])


def test_a_missing_run_is_named(runs, tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no trained network"):
        load_ensemble([runs / "flair", tmp_path])


def broken(run, folder, factor):
    """A copy of a run whose first convolution has a kernel that is `factor` times as large."""
    shutil.copytree(run, folder)
    _, network = load_network(run)
    kernel = network.get_layer("stem_conv").kernel
    kernel.assign(kernel.numpy() * np.float32(factor))
    network.save_weights(folder / "network.weights.h5")
    return folder


def test_weights_that_are_not_finite_are_refused(runs, tmp_path):
    folder = broken(runs / "t1", tmp_path / "t1", np.nan)
    with pytest.raises(InputError, match="must hold finite weights; received NaN or infinity in .*stem_conv/kernel"):
        load_ensemble([runs / "flair", folder])


@pytest.mark.slow
def test_a_network_that_overflows_predicts_nothing(runs, phantoms, tmp_path):
    """Not 0 everywhere, which would look like a brain without a tumour."""
    folder = broken(runs / "t1", tmp_path / "t1", 3e38)
    failures = predict_cases(load_ensemble([runs / "flair", folder]), phantoms[:1], out=tmp_path / "out")
    expected = f"Case {phantoms[0].id}: t1 must predict finite probabilities; received NaN or infinity."
    assert failures == [(phantoms[0].id, expected)]
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_the_ensemble_keeps_one_network_in_memory(members):
    assert len({id(member.network) for member in members}) == 1


def test_a_full_disk_leaves_no_half_written_label_map(members, phantoms, tmp_path, monkeypatch):
    import errno

    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(WriteError) as raised:  # At once: the next case could not be written either.
        predict_cases(members, phantoms[:2], out=tmp_path)
    assert str(raised.value) == f"{tmp_path / phantoms[0].id}.nii.gz could not be written: No space left on device."
    assert [path.name for path in tmp_path.iterdir()] == ["prediction.json"]
    record = json.loads((tmp_path / "prediction.json").read_text())
    assert record["pending"] == [case.id for case in phantoms[:2]] and record["cases"] == {}
    monkeypatch.undo()
    predict_cases(members, phantoms[:2], out=tmp_path)
    assert json.loads((tmp_path / "prediction.json").read_text())["pending"] == []


def test_a_record_is_true_at_every_moment(members, phantoms, tmp_path, monkeypatch):
    """Stopped before, between or after any two steps of a prediction that replaces another: whatever lies there is
    either the recorded map or refused."""
    predict_cases(members[:1], phantoms[:2], out=tmp_path / "first")
    truth = {case.id: case for case in phantoms}

    class Killed(BaseException):
        pass

    replace, states = os.replace, 0
    for last in range(20):
        out = tmp_path / f"out{last}"
        shutil.copytree(tmp_path / "first", out)
        calls = itertools.count()

        def stop(source, target, calls=calls, last=last):
            if next(calls) == last:
                raise Killed
            replace(source, target)

        monkeypatch.setattr(os, "replace", stop)
        try:
            predict_cases(members[1:2], phantoms[:2], out=out, options=PredictionOptions(replace=True))
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        maps = LabelMaps(out)
        for case_id, facts in maps.record["cases"].items():
            try:
                maps.read_classes(truth[case_id])
            except InputError as error:
                assert "is not the label map that prediction.json records" in str(error) or "received none" in str(
                    error
                )
            else:
                assert sha256_of(out / f"{case_id}.nii.gz") == facts["sha256"]
                states += list(maps.record["networks"]) == ["t1"]
        assert not (out / ".lock").exists()
        if finished:
            break
        predict_cases(members[1:2], phantoms[:2], out=out, options=PredictionOptions(replace=True))
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "first").iterdir()}
    assert finished and last == 5 and states > 2  # The record, and for each case the record and its map.


def test_a_record_cannot_delete_what_lies_elsewhere(members, phantoms, tmp_path):
    (tmp_path / "victim.nii.gz").write_text("mine")
    predict_cases(members[:1], phantoms[:1], out=tmp_path / "out")
    path = tmp_path / "out" / "prediction.json"
    record = json.loads(path.read_text())
    record["cases"]["../victim"] = record["cases"][phantoms[0].id]
    path.write_text(json.dumps(record))
    predict_cases(members[1:2], phantoms[:1], out=tmp_path / "out", options=PredictionOptions(replace=True))
    assert (tmp_path / "victim.nii.gz").read_text() == "mine"
    with pytest.raises(InputError, match="the id of a case cannot be the name of a file"):
        path.write_text(json.dumps(record))
        LabelMaps(tmp_path / "out")


def test_notes_on_the_files_are_printed_as_they_are_before_training(members, phantoms, tmp_path, capsys):
    for path in phantoms[0].folder.iterdir():
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
        (tmp_path / "data" / "a").mkdir(parents=True, exist_ok=True)
        noisy = nib.Nifti1Image(np.where(voxels == 0, 7, voxels), image.affine)
        nib.save(noisy, tmp_path / "data" / "a" / f"a_{path.name.rpartition('_')[2]}")
    predict_cases(members[:1], find_cases(tmp_path / "data")[0], out=tmp_path / "out")
    said = capsys.readouterr().out
    assert "Note: hardly any voxel is 0: the skull should be stripped and the background 0: a." in said
    assert "Note: voxels of 6x6x6 mm, not resampled to 1 mm: a." in said


def test_two_predictions_into_one_folder_at_once_are_refused(members, phantoms, tmp_path):
    with lock(tmp_path):
        with pytest.raises(InputError, match="is in use by process"):
            predict_cases(members[:1], phantoms[:1], out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_of_another_spacing_predicts_in_the_files_own_voxels(phantoms, tmp_path):
    config = Config.from_preset(
        "embedding", modalities=("t1",), crop=TINY_CROP, backbone="tiny", weights="none", spacing_mm=7.5
    )
    config.save(tmp_path)
    build_network(config).save_weights(tmp_path / "network.weights.h5")
    members = load_ensemble([tmp_path])
    assert (
        predict_cases(members, phantoms[:1], out=tmp_path / "out", options=PredictionOptions(save_probabilities=True))
        == []
    )
    prepared = prepare_case(phantoms[0], modalities=("t1",), crop=TINY_CROP, with_truth=False, spacing_mm=7.5)
    expected = prepared.to_file_axes(members[0].predict(prepared.volume))
    written = nib.load(tmp_path / "out" / "probabilities" / f"{phantoms[0].id}.nii.gz")
    np.testing.assert_allclose(written.get_fdata(), expected, atol=1e-6)
    assert written.shape[:3] == (40, 40, 26)
    with pytest.raises(InputError, match="must share `spacing_mm`. Received: None in .*, 7.5 before"):
        Config.from_preset("embedding", modalities=("t2",), crop=TINY_CROP, backbone="tiny").save(tmp_path / "t2")
        load_ensemble([tmp_path, tmp_path / "t2"])


@pytest.mark.slow
def test_mirrored_volumes_are_mirrored_back_and_averaged(runs, members, phantoms):
    prepared = prepare_case(phantoms[0], modalities=("flair",), crop=TINY_CROP, with_truth=False)
    (mirrored,) = load_ensemble([runs / "flair"], forward=ForwardOptions(mirror="lr"))
    (every,) = load_ensemble([runs / "flair"], forward=ForwardOptions(mirror="all"))
    plain = members[0].predict
    volume = prepared.volume
    expected = (plain(volume) + plain(volume[:, ::-1].copy())[:, ::-1]) / 2  # Left and right.
    np.testing.assert_allclose(mirrored.predict(volume), expected, atol=1e-6)
    assert np.abs(expected - plain(volume)).max() > 1e-3
    expected = 0
    for h, w, d in itertools.product((1, -1), repeat=3):
        expected = expected + plain(volume[::h, ::w, ::d].copy())[::h, ::w, ::d] / 8
    np.testing.assert_allclose(every.predict(volume), expected, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_predicts_nearly_the_same_and_is_recorded(runs, members, phantoms, tmp_path, capsys, monkeypatch):
    options = PredictionOptions(save_probabilities=True)
    half = load_ensemble([runs / "flair"], forward=ForwardOptions(precision="bfloat16"))
    predict_cases(members[:1], phantoms[:1], out=tmp_path / "whole", options=options)
    predict_cases(half, phantoms[:1], out=tmp_path / "half", options=options)
    whole, rounded = (
        nib.load(tmp_path / name / "probabilities" / f"{phantoms[0].id}.nii.gz").get_fdata()
        for name in ("whole", "half")
    )
    difference = np.abs(whole - rounded)
    assert 0 < difference.mean() < 0.01  # Not the greatest: how far off one voxel is depends on the processor.
    assert json.loads((tmp_path / "half" / "prediction.json").read_text())["forward"] == {
        "precision": "bfloat16",
        "mirror": "none",
    }
    with pytest.raises(InputError, match="holds predictions with other steps .*'precision': 'bfloat16'"):
        predict_cases(members[:1], phantoms[:1], out=tmp_path / "half")
    assert half[0].network.weights[0].dtype == "float32"
    assert "in bfloat16, about" in capsys.readouterr().out


def test_the_next_case_is_read_and_the_last_one_written_while_the_networks_work(
    members, phantoms, tmp_path, monkeypatch
):
    events = []

    def told(name, function, pause=0.0):
        def call(*arguments, **settings):
            events.append(f"{name} begins")
            time.sleep(pause)
            result = function(*arguments, **settings)
            events.append(f"{name} ends")
            return result

        monkeypatch.setattr(predict, function.__name__, call)

    told("reading", predict.read_case)
    told("networks", predict.predict_case, pause=0.3)
    told("writing", predict.write_prediction, pause=0.1)
    assert predict_cases(members[:1], phantoms[:3], out=tmp_path) == []
    first, second, third = (number for number, event in enumerate(events) if event == "networks ends")
    assert events[:second].count("reading ends") == 3  # The third is read before the second is predicted.
    assert events[:third].count("writing ends") == 2 and first < events.index("writing begins") < second


@pytest.mark.parametrize("first", ["classes", "regions"])
def test_networks_of_classes_and_of_regions_are_averaged_in_any_order(first):
    """What TensorFlow makes of classes lies in its own memory, which cannot be added to."""
    random, shape = np.random.default_rng(0), (4, 4, 3)
    classes = random.dirichlet(np.ones(4), shape).astype(np.float32)
    members = {"classes": classes, "regions": random.random((*shape, 3)).astype(np.float32)}
    expected = (np.asarray(to_regions(classes, "classes")) + members["regions"]) / 2
    together = EnsemblePrediction(Prepared(), "regions", several=True)
    for outputs in (first, *set(members) - {first}):
        together.add(Member(outputs, outputs), members[outputs].copy())
    np.testing.assert_allclose(together.average, expected, atol=1e-6)


@dataclasses.dataclass
class Prepared:
    volume: None = None


@dataclasses.dataclass
class Member:
    name: str
    outputs: str
