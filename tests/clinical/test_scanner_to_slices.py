"""From made-up DICOM series to cases, and from label maps to DICOM SEG on the source's slices."""

import gzip
import json
import re
import shutil

import highdicom
import keras
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made_up_patients import PERSON, head, scan_patient
from prediction_records import write_record
from tiny_networks import TINY_CROP

from brats_tf.cli.main import main
from brats_tf.clinical.conform import read_conform
from brats_tf.clinical.dicom_seg import write_segmentation
from brats_tf.clinical.grids import Grid, grid_of_volume
from brats_tf.clinical.restore import restore_predictions, restore_regions
from brats_tf.clinical.series import read_series
from brats_tf.clinical.stack import stack
from brats_tf.config.config import Config
from brats_tf.data.discovery import find_cases
from brats_tf.data.volumes import read_segmentation, read_volume, write_volume
from brats_tf.errors import InputError
from brats_tf.models.build import build_network
from brats_tf.regions import (
    BRATS_2017,
    REGION_THRESHOLD,
    classes_to_labels,
    classes_to_regions,
    labels_to_classes,
    regions_to_classes,
)
from brats_tf.report.volumes_page import write_volumes_page
from brats_tf.runtime.files import sha256_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """(folder, {modality: true matrix}) of one conformed patient: `scanner/` and `cases/`."""
    folder = tmp_path_factory.mktemp("clinical")
    moves = scan_patient(folder / "scanner" / "P1")
    assert main(["conform", str(folder / "scanner"), "--out", str(folder / "cases"), "--brain-mask", "nonzero"]) == 0
    return folder, moves


@pytest.fixture(scope="module")
def predicted(patient):
    """The folder of a prediction that is the truth, brought onto the case's grid by the known transform."""
    folder, moves = patient
    _, classes, grid = head()
    case = Grid.from_dict(read_conform(folder / "cases" / "P1")["grid"])
    regions = restore_regions(classes_to_regions(classes), grid, case, moves["t1ce"]) > REGION_THRESHOLD
    labels = classes_to_labels(regions_to_classes(regions), BRATS_2017)
    assert labels.any()
    like = read_volume(folder / "cases" / "P1" / "P1_t1ce.nii.gz", case_id="P1")
    write_volume(folder / "predictions" / "P1.nii.gz", labels, like=like)
    write_record(folder / "predictions", ["P1"], data=[str(folder / "cases")])
    return folder


def test_predictions_that_are_missing_are_said(tmp_path):
    (tmp_path / "P1.nii.gz").write_bytes(b"1")
    write_record(tmp_path, ["P1"], left_out={"A": "Case A: bad."}, pending=["B"])
    (tmp_path / "P1.nii.gz").write_bytes(b"another")
    failures = restore_predictions(tmp_path, out=tmp_path / "out")
    assert [one for one, _ in failures] == ["A", "B", "P1"]
    assert dict(failures)["B"] == "Case B: its prediction stopped before it; predict it again."
    assert json.loads((tmp_path / "out" / "restored.json").read_text())["left_out"] == dict(failures)


def test_a_conformed_case_is_one_of_brats(patient):
    folder, _ = patient
    (case,), skipped = find_cases(folder / "cases")
    assert sorted(case.volumes) == ["flair", "t1", "t1ce", "t2"] and not skipped
    volume = read_volume(case.volumes["t2"], case_id="P1")
    assert volume.voxels.shape == (240, 240, 155)
    np.testing.assert_allclose(np.abs(volume.affine[:3, :3]), np.eye(3), atol=1e-6)
    assert (volume.voxels == 0).mean() > 0.7 and volume.voxels.min() == 0
    assert (folder / "cases" / "checks.html").stat().st_size > 50_000


def test_the_known_transforms_are_found(patient):
    folder, moves = patient
    record = read_conform(folder / "cases" / "P1")
    assert record["reference"] == "t1ce"
    _, _, grid = head()
    points = grid.corners() * 0.4  # About the brain's surface.
    there = points @ moves["t1ce"][:3, :3].T + moves["t1ce"][:3, 3]
    for name in ("flair", "t1", "t2"):
        found = np.array(record["series"][name]["case_to_series"])
        wanted = points @ moves[name][:3, :3].T + moves[name][:3, 3]
        error = np.linalg.norm(there @ found[:3, :3].T + found[:3, 3] - wanted, axis=1)
        assert error.max() < 2, (name, error.max())


def test_a_second_conform_leaves_the_case_as_it_is(patient, capsys):
    folder, _ = patient
    path = folder / "cases" / "P1" / "conform.json"
    before = path.stat().st_mtime_ns
    assert main(["conform", str(folder / "scanner"), "--out", str(folder / "cases"), "--brain-mask", "nonzero"]) == 0
    assert path.stat().st_mtime_ns == before and "is there already" in capsys.readouterr().out
    assert main(["conform", str(folder / "scanner"), "--out", str(folder / "cases"), "--brain-mask", "hd-bet"]) == 2
    assert "with --replace" in capsys.readouterr().out and path.stat().st_mtime_ns == before


def test_segments_lie_on_the_slices_of_the_source(patient, predicted):
    folder, moves = patient
    out = folder / "restored"
    assert main(["restore", str(predicted / "predictions"), "--out", str(out), "--to", "native"]) == 0
    found, _ = read_series(folder / "scanner" / "P1", "P1")
    for series in found:
        grid, frames = stack(series)
        name = _modality(folder, series)
        back = read_segmentation(out / "P1" / f"P1_{name}_seg.nii.gz", case_id="P1")
        there = grid_of_volume(back)
        assert there.size == grid.size
        np.testing.assert_allclose(there.matrix, grid.matrix, atol=1e-3)
        regions = classes_to_regions(labels_to_classes(back.voxels, BRATS_2017))
        seg = highdicom.seg.segread(out / "P1" / f"P1_{name}_seg.dcm")
        assert seg.number_of_segments == 3
        assert [seg.get_segment_description(number).segment_label for number in (1, 2, 3)] == [
            "Whole tumor", "Tumor core", "Enhancing tumor"
        ]  # fmt: skip
        uids = [frame[0].SOPInstanceUID for frame in frames]
        pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)  # (Z, rows, columns, 3)
        np.testing.assert_array_equal(np.transpose(pixels, (2, 1, 0, 3)).astype(bool), regions)
        assert seg.StudyInstanceUID == frames[0][0].StudyInstanceUID
        assert {one.SeriesInstanceUID for one in seg.ReferencedSeriesSequence} == {frames[0][0].SeriesInstanceUID}
        assert seg.FrameOfReferenceUID == frames[0][0].FrameOfReferenceUID
        assert (out / "P1" / f"P1_{name}_seg.png").stat().st_size > 10_000
        image = sitk.ReadImage(str(out / "P1" / f"P1_{name}_seg.dcm"))
        assert image.GetSize()[:2] == grid.size[:2] and sitk.GetArrayFromImage(image).any()
        truth = restore_regions(classes_to_regions(head()[1]), head()[2], grid, moves[name]) > REGION_THRESHOLD
        dice = 2 * (truth[..., 0] & regions[..., 0]).sum() / (truth[..., 0].sum() + regions[..., 0].sum())
        assert dice > 0.85, (name, dice)
    volumes = json.loads((out / "restored.json").read_text())["cases"]["P1"]
    assert volumes["flair"]["WT_ml"] == pytest.approx(volumes["t1ce"]["WT_ml"], rel=0.15)


def test_segment_goes_from_the_scanner_to_its_slices_and_on_where_it_stopped(patient, tmp_path, capsys):
    folder, _ = patient
    keras.utils.set_random_seed(0)
    settings = {"crop": TINY_CROP, "spacing_mm": 6.0, "backbone": "tiny", "weights": "none"}
    run = tmp_path / "runs" / "t2"
    run.mkdir(parents=True)
    config = Config.from_preset("embedding", modalities=("t2",), **settings)
    config.save(run)
    build_network(config).save_weights(run / "network.weights.h5")
    out = tmp_path / "out"
    shutil.copytree(folder / "cases", out / "cases")
    command = ["segment", str(folder / "scanner"), "--runs", str(tmp_path / "runs"), "--networks", "t2"]
    command += ["--out", str(out), "--brain-mask", "nonzero"]
    assert main(command) == 0
    page = (out / "report.html").read_text()
    assert "P1" in page and "data:image/png;base64" in page
    seg = highdicom.seg.segread(out / "restored" / "P1" / "P1_t1ce_seg.dcm")
    assert seg.get_segment_description(1).algorithm_identification.name == "brats_tf"
    written = (out / "predictions" / "P1.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    shutil.rmtree(out / "restored")
    assert main(command) == 0
    assert (out / "predictions" / "P1.nii.gz").stat().st_mtime_ns == written  # Neither conformed nor predicted again.
    assert "is there already" in capsys.readouterr().out
    assert (out / "restored" / "P1" / "P1_t1ce_seg.dcm").is_file()
    out = out.rename(tmp_path / "moved")
    command[command.index("--out") + 1] = str(out)
    shutil.rmtree(out / "restored")
    assert main(command) == 0  # From its own cases.
    record = json.loads((out / "restored" / "restored.json").read_text())
    record["cases"]["P0"] = record["cases"]["P1"]  # A patient that is gone, restored by an earlier call.
    (out / "restored" / "restored.json").write_text(json.dumps(record))
    write_volumes_page(out / "report.html", out / "cases", out / "restored", [("P1", "a slice is missing")])
    page = (out / "report.html").read_text()
    assert "P1 (see Left out)" in page and "P0/conform.json must hold" in page
    other = [*command, "--remove-below-ml", "1"]
    assert main(other) == 2  # Not ignored.
    assert re.search("holds predictions with other .*remove_below_ml", capsys.readouterr().err)
    assert main([*other, "--replace"]) == 0
    record = json.loads((out / "predictions" / "prediction.json").read_text())
    assert record["postprocessing"]["remove_below_ml"] == 1 and record["cases"]["P1"]
    assert (out / "predictions" / "P1.nii.gz").stat().st_mtime_ns > written
    scan_patient(tmp_path / "later" / "P2", modalities=("t2",), seed=1)
    assert main(["restore", str(out / "predictions"), "--source", str(tmp_path / "later"), "--out", str(out)]) == 0


def _modality(folder, series):
    record = read_conform(folder / "cases" / "P1")
    return next(name for name, one in record["series"].items() if one["number"] == series.tags["SeriesNumber"])


def test_nothing_of_a_person_leaves_the_scanner(patient, predicted, capsys):
    folder, _ = patient
    assert main(["restore", str(predicted / "predictions"), "--out", str(folder / "again"), "--to", "flair"]) == 0
    said = capsys.readouterr()
    texts = {"the console": (said.out + said.err).encode()}
    for path in [*(folder / "cases").rglob("*"), *(folder / "again").rglob("*")]:
        if path.is_file():
            packed = path.read_bytes()
            texts[path.name] = path.name.encode() + (gzip.decompress(packed) if path.suffix == ".gz" else packed)
    secrets = [PERSON["PatientID"], "Doe^", "Jane", PERSON["PatientBirthDate"], "ACC998877", "Brown^", "Elsewhere"]
    for name, text in texts.items():
        for secret in secrets:
            assert secret.encode() not in text, (name, secret)
        if not name.endswith(".dcm"):
            assert not re.search(rb"1\.2\.826\.0\.1\.3680043\.8\.498", text), name
    seg = pydicom.dcmread(folder / "again" / "P1" / "P1_flair_seg.dcm")
    assert seg.PatientID == "" and seg.PatientName == "" and seg.PatientBirthDate in ("", None)


def test_what_nobody_foresaw_costs_one_case(predicted, tmp_path, monkeypatch, capsys):
    def fail(*given, **more):
        raise AttributeError("'Dataset' object has no attribute 'SOPInstanceUID'")

    monkeypatch.setattr("brats_tf.clinical.restore._restore", fail)
    assert main(["restore", str(predicted / "predictions"), "--out", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: Case P1: its series could not be read: AttributeError" in said
    assert json.loads((tmp_path / "restored.json").read_text())["left_out"].keys() == {"P1"}


def test_what_an_earlier_prediction_left_is_not_restored(predicted, tmp_path, capsys):
    predictions, out = tmp_path / "predictions", tmp_path / "restored"
    shutil.copytree(predicted / "predictions", predictions)
    command = ["restore", str(predictions), "--out", str(out)]
    assert main([*command, "--to", "native"]) == 0
    assert (out / "P1" / "P1_flair_seg.dcm").is_file()
    assert main(command) == 0
    assert sorted(path.name for path in (out / "P1").iterdir()) == [
        f"P1_t1ce_seg.{ending}" for ending in ("dcm", "nii.gz", "png")
    ]
    labels = read_segmentation(predictions / "P1.nii.gz", case_id="P1")
    other = np.zeros((9, 9, 9, 3), np.float32)
    other[3:6, 3:6] = np.linspace(0.1, 0.9, 9)[:, None]
    write_volume(predictions / "probabilities" / "P1.nii.gz", other, like=labels)
    capsys.readouterr()
    assert main(command) == 2
    assert "must have the shape 240x240x155 of P1.nii.gz; received 9x9x9" in capsys.readouterr().out
    shutil.rmtree(predictions / "probabilities")
    write_volume(predictions / "P1.nii.gz", np.zeros_like(labels.voxels), like=labels)
    assert main(command) == 2
    assert "P1.nii.gz must be the label map that prediction.json records" in capsys.readouterr().out


@pytest.mark.parametrize(("outputs", "whole_tumour"), [("regions", False), ("classes", False), ("classes", True)])
def test_probabilities_are_restored_as_the_label_map_was_decided(predicted, tmp_path, outputs, whole_tumour):
    """Background 0.4, necrosis 0.3 and edema 0.3 is background for a network of classes, WT for one of regions."""
    predictions = tmp_path / "predictions"
    shutil.copytree(predicted / "predictions", predictions)
    record = json.loads((predictions / "prediction.json").read_text())
    labels = read_segmentation(predictions / "P1.nii.gz", case_id="P1")
    regions = np.zeros((*labels.voxels.shape, 3), np.float32)
    regions[80:160, 80:160, 60:100] = (0.7 if whole_tumour else 0.6, 0.3, 0)
    path = predictions / "probabilities" / "P1.nii.gz"
    write_volume(path, regions, like=labels)
    record["cases"]["P1"] |= {"outputs": outputs, "beside": {"probabilities": sha256_of(path)}}
    (predictions / "prediction.json").write_text(json.dumps(record))
    assert main(["restore", str(predictions), "--out", str(tmp_path / "out"), "--no-dicom-seg"]) == 0
    volumes = json.loads((tmp_path / "out" / "restored.json").read_text())["cases"]["P1"]["t1ce"]
    assert (volumes["WT_ml"] > 200) == (outputs == "regions" or whole_tumour)
    assert volumes["TC_ml"] == volumes["ET_ml"] == 0  # All of whose probabilities are 0.3, and 0.


def test_probabilities_that_are_not_the_recorded_ones_are_not_restored(predicted, tmp_path, capsys):
    shutil.copytree(predicted / "predictions", tmp_path / "predictions")
    path = tmp_path / "predictions" / "prediction.json"
    record = json.loads(path.read_text())
    record["cases"]["P1"] |= {"outputs": "regions", "beside": {"probabilities": "0" * 64}}
    path.write_text(json.dumps(record))
    labels = read_segmentation(tmp_path / "predictions" / "P1.nii.gz", case_id="P1")
    regions = np.zeros((*labels.voxels.shape, 3), np.float32)
    write_volume(tmp_path / "predictions" / "probabilities" / "P1.nii.gz", regions, like=labels)
    assert main(["restore", str(tmp_path / "predictions"), "--out", str(tmp_path / "out"), "--no-dicom-seg"]) == 2
    assert "is not the file that its prediction.json records. Predict it again." in " ".join(
        capsys.readouterr().out.split()
    )


def test_probabilities_of_an_unknown_kind_are_not_restored(predicted, tmp_path, capsys):
    shutil.copytree(predicted / "predictions", tmp_path / "predictions")
    path = tmp_path / "predictions" / "prediction.json"
    record = json.loads(path.read_text())
    del record["cases"]["P1"]["outputs"]
    record["cases"]["P1"]["beside"] = {"probabilities": "0" * 64}
    path.write_text(json.dumps(record))
    labels = read_segmentation(tmp_path / "predictions" / "P1.nii.gz", case_id="P1")
    probabilities = np.zeros((*labels.voxels.shape, 3), np.float32)
    write_volume(tmp_path / "predictions" / "probabilities" / "P1.nii.gz", probabilities, like=labels)
    assert main(["restore", str(tmp_path / "predictions"), "--out", str(tmp_path / "out"), "--no-dicom-seg"]) == 2
    assert "does not say how probabilities become classes. Predict it again." in capsys.readouterr().out


def test_predictions_of_other_cases_cannot_be_restored(predicted, tmp_path, capsys):
    (tmp_path / "cases").mkdir()
    arguments = [
        "restore",
        str(predicted / "predictions"),
        "--out",
        str(tmp_path),
        "--conformed",
        str(tmp_path / "cases"),
    ]
    assert main(arguments) == 2
    assert "only cases of `brats-tf conform` can be restored" in capsys.readouterr().out


def test_a_source_that_changed_is_not_taken_for_the_old_one(patient, predicted, tmp_path, capsys):
    scan_patient(tmp_path / "scanner" / "P1", seed=5, modalities=("t1ce",))
    source = ["--source", str(tmp_path / "scanner"), "--out", str(tmp_path)]
    assert main(["restore", str(predicted / "predictions"), *source]) == 2
    assert "are not in" in capsys.readouterr().out and not list(tmp_path.glob("**/*_seg.dcm"))


def test_what_was_restored_stays_where_the_sources_are_gone(predicted, tmp_path, capsys):
    command = ["restore", str(predicted / "predictions"), "--out", str(tmp_path / "restored")]
    assert main(command) == 0
    folder, record = tmp_path / "restored" / "P1", tmp_path / "restored" / "restored.json"
    before, files = json.loads(record.read_text()), sorted(path.name for path in folder.iterdir())
    (tmp_path / "elsewhere" / "P1").mkdir(parents=True)
    capsys.readouterr()
    others = ["--to", "native", "--source", str(tmp_path / "elsewhere")]
    assert main([*command, *others]) == 2
    assert "what an earlier call restored of it stays" in " ".join(capsys.readouterr().out.split())
    after = json.loads(record.read_text())
    assert sorted(path.name for path in folder.iterdir()) == files
    assert after["cases"] == before["cases"] and list(after["left_out"]) == ["P1"]


def test_what_has_not_changed_is_not_restored_again(predicted, tmp_path, capsys):
    """A DICOM SEG that is made again would be another series."""
    command = ["restore", str(predicted / "predictions"), "--out", str(tmp_path)]
    assert main(command) == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "P1").iterdir()}
    record = json.loads((tmp_path / "restored.json").read_text())
    (tmp_path / "gone").mkdir()
    assert main([*command, "--source", str(tmp_path / "gone")]) == 0  # Nothing is read.
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "P1").iterdir()} == files
    assert json.loads((tmp_path / "restored.json").read_text()) == record
    (tmp_path / "P1" / "P1_t1ce_seg.png").unlink()
    assert main(command) == 0
    assert (tmp_path / "P1" / "P1_t1ce_seg.png").is_file()
    assert main([*command, "--no-dicom-seg"]) == 0
    assert not list((tmp_path / "P1").glob("*.dcm"))


def test_volumes_stay_where_a_dicom_seg_cannot_be_made(predicted, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise InputError("series 3 cannot carry a DICOM SEG: ValueError: no frame of reference.")

    monkeypatch.setattr("brats_tf.clinical.restore.write_segmentation", fail)
    assert main(["restore", str(predicted / "predictions"), "--out", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: Case P1: series 3 cannot carry a DICOM SEG: ValueError: no frame of reference; the label" in said
    record = json.loads((tmp_path / "restored.json").read_text())
    assert record["cases"]["P1"]["t1ce"]["files"] == ["P1_t1ce_seg.nii.gz", "P1_t1ce_seg.png"]
    assert record["cases"]["P1"]["t1ce"]["WT_ml"] > 0 and list(record["left_out"]) == ["P1"]


def test_a_dicom_seg_has_nothing_of_the_source_but_what_it_needs(patient, predicted, tmp_path):
    shutil.copytree(patient[0] / "scanner", tmp_path / "scanner")
    for path in (tmp_path / "scanner").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.OtherPatientNames, header.MedicalAlerts, header.StationName = "DOE-2", "SECRET-ALERT", "SECRET-STATION"
        header.PatientBirthTime, header.AdmissionID = "010203", "SECRET-ADMISSION"
        pydicom.dcmwrite(path, header)
    series = next(one for one in read_series(tmp_path / "scanner" / "P1", "P1")[0] if one.is_dicom)
    grid, _ = stack(series)
    regions = np.zeros((*grid.size, 3), bool)
    regions[2:5, 2:5, 2:5] = True
    write_segmentation(tmp_path / "seg.dcm", regions, series)
    text = str(pydicom.dcmread(tmp_path / "seg.dcm"))
    assert "SECRET" not in text and "DOE" not in text and "010203" not in text
