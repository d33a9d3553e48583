import json
import shutil
import threading

import keras
import pytest
from prediction_records import without_seconds
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.cli.main import main
from brats_tf.errors import InputError
from brats_tf.inference import shards
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.inference.prediction_record import read_prediction_record
from brats_tf.inference.shards import _joined, agree_on_cases


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The folder of runs with two networks of FLAIR, of different weights."""
    folder = tmp_path_factory.mktemp("runs")
    with networks_of_two_convolutions():
        for seed, name in enumerate(("flair", "other")):
            keras.utils.set_random_seed(seed)
            untrained(folder / name, modalities=("flair",))
        yield folder


@pytest.fixture
def predict(networks, phantom_folder):
    """A function that predicts: (out, further words) -> exit code."""

    def run(out, *words, network="flair", data=phantom_folder):
        given = ["predict", str(data), "--runs", str(networks), "--networks", network, "--out", str(out)]
        return main([*given, *words])

    return run


def maps(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.nii.gz")}


def test_merged_shards_are_what_one_process_writes(predict, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert predict(whole, "--save-probabilities") == 0
    for shard in ("2/3", "1/3", "3/3"):
        assert predict(parts, "--shard", shard, "--save-probabilities") == 0
    assert sorted(path.name for path in (parts / "shards").iterdir()) == ["1of3", "2of3", "3of3", "cases.json"]
    assert main(["merge", str(parts)]) == 0
    assert "4 label maps of 3 shards" in capsys.readouterr().out
    assert maps(parts) == maps(whole) and len(maps(parts)) == 8
    assert not (parts / "shards").exists()
    assert json.dumps(without_seconds(whole)) == json.dumps(without_seconds(parts))
    assert main(["evaluate", str(parts)]) == 0


def test_a_missing_an_unfinished_and_a_foreign_shard_are_refused(predict, tmp_path, capsys):
    assert predict(tmp_path, "--shard", "1/2") == 0
    assert main(["merge", str(tmp_path)]) == 2
    assert "lacks 1 of 2 shards: 2/2" in capsys.readouterr().err
    assert predict(tmp_path, "--shard", "2/2", network="other") == 0
    assert main(["merge", str(tmp_path)]) == 2
    assert "other networks (other): all shards must be of the same" in capsys.readouterr().err
    assert predict(tmp_path, "--shard", "2/2", "--replace") == 0
    record = tmp_path / "shards" / "2of2" / "prediction.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"pending": ["Phantom_004"]}))
    assert main(["merge", str(tmp_path)]) == 2
    assert "2of2 is unfinished, 1 cases are pending: predict with --resume" in capsys.readouterr().err
    assert predict(tmp_path, "--shard", "2/2", "--resume") == 0
    assert predict(tmp_path, "--shard", "1/4") == 0
    assert main(["merge", str(tmp_path)]) == 2
    assert "Received shards of 2, 4" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "shards" / "1of4")
    assert not list(tmp_path.glob("*.nii.gz"))
    assert main(["merge", str(tmp_path)]) == 0


def test_a_merge_that_was_interrupted_goes_on(predict, tmp_path, monkeypatch):
    predict(tmp_path / "whole")
    for shard in ("1/2", "2/2"):
        predict(tmp_path / "parts", "--shard", shard)
    replace, calls = shards.os.replace, []

    def dies(source, target):
        if str(target).endswith(".nii.gz"):
            calls.append(target)
            if len(calls) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            shards.merge_shards(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.nii.gz"))) == 2
    assert shards.merge_shards(tmp_path / "parts") == (4, {})
    assert maps(tmp_path / "parts") == maps(tmp_path / "whole")


def test_a_label_map_that_is_not_the_recorded_one_is_not_merged(predict, tmp_path):
    predict(tmp_path, "--shard", "1/1")
    path = tmp_path / "shards" / "1of1" / "Phantom_002.nii.gz"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(InputError, match="Case Phantom_002: .*Phantom_002.nii.gz is not the label map"):
        shards.merge_shards(tmp_path)
    assert path.is_file()


def test_a_label_map_of_another_program_stays(predict, tmp_path, capsys):
    predict(tmp_path, "--shard", "1/1")
    foreign = tmp_path / "Phantom_002.nii.gz"
    foreign.write_bytes(b"made by another program")
    assert main(["merge", str(tmp_path)]) == 2
    assert "Phantom_002.nii.gz is not of a prediction that prediction.json records" in capsys.readouterr().err
    assert foreign.read_bytes() == b"made by another program"
    assert not (tmp_path / "prediction.json").exists()
    foreign.unlink()
    assert main(["merge", str(tmp_path)]) == 0


def test_probabilities_of_an_earlier_prediction_do_not_stay(predict, tmp_path):
    for words in ([], ["--shard", "1/1"]):
        predict(tmp_path, "--save-probabilities")
        assert len(list((tmp_path / "probabilities").iterdir())) == 4
        predict(tmp_path, *words)
        assert not words or shards.merge_shards(tmp_path) == (4, {})
        assert not list((tmp_path / "probabilities").iterdir())
        assert len(list(tmp_path.glob("*.nii.gz"))) == 4


def test_networks_of_one_name_are_refused(networks, phantoms, tmp_path):
    shutil.copytree(networks / "other", tmp_path / "flair")
    predictors = load_ensemble([networks / "flair", tmp_path / "flair"])
    with pytest.raises(InputError, match="must have different names. Received: flair, flair"):
        predict_cases(predictors, phantoms[:1], out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.*"))


def test_a_case_left_out_of_a_shard_is_left_out_of_the_whole(networks, predict, phantom_folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(phantom_folder, data)
    flair = next((data / "Phantom_002").glob("*_flair*"))
    flair.write_bytes(flair.read_bytes()[:-100])
    for shard in ("1/2", "2/2"):
        words = ["predict", str(data), "--runs", str(networks), "--networks", "flair", "--out", str(tmp_path / "out")]
        assert main([*words, "--shard", shard]) == (2 if shard == "2/2" else 0)
    assert main(["merge", str(tmp_path / "out")]) == 2
    record = read_prediction_record(tmp_path / "out")
    assert list(record["left_out"]) == ["Phantom_002"] and len(record["cases"]) == 3


def test_resume_predicts_what_is_missing_or_changed(predict, tmp_path, capsys):
    predict(tmp_path)
    before = maps(tmp_path)
    (tmp_path / "Phantom_001.nii.gz").unlink()
    changed = tmp_path / "Phantom_003.nii.gz"
    changed.write_bytes(b"something else")
    capsys.readouterr()
    assert predict(tmp_path, "--resume") == 0
    printed = capsys.readouterr().out
    assert "2 of 4 label maps are in" in printed and "Predicting 2 case(s)" in printed
    assert maps(tmp_path) == before


def test_resume_predicts_again_what_lacks_a_file_that_is_asked_for_now(predict, tmp_path, capsys):
    predict(tmp_path)
    capsys.readouterr()
    assert predict(tmp_path, "--resume", "--save-probabilities") == 0
    assert "Predicting 4 case(s)" in capsys.readouterr().out
    assert len(maps(tmp_path)) == 8
    assert predict(tmp_path, "--resume", "--save-probabilities") == 0
    assert "4 of 4 label maps are in" in capsys.readouterr().out


def test_resume_predicts_again_what_lacks_its_uncertainty(predict, tmp_path, capsys):
    words = {"network": "flair,other"}
    assert predict(tmp_path, "--save-uncertainty", **words) == 0
    first = min((tmp_path / "uncertainty").iterdir())
    before = first.read_bytes()
    first.unlink()
    capsys.readouterr()
    assert predict(tmp_path, "--save-uncertainty", "--resume", **words) == 0
    assert "3 of 4 label maps are in" in capsys.readouterr().out and first.read_bytes() == before


def test_resume_predicts_again_what_has_other_images_now(predict, phantom_folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(phantom_folder, data)
    predict(tmp_path / "out", data=data)
    before = maps(tmp_path / "out")
    source, target = (data / name / f"{name}_flair.nii.gz" for name in ("Phantom_001", "Phantom_002"))
    shutil.copyfile(source, target)
    capsys.readouterr()
    assert predict(tmp_path / "out", "--resume", data=data) == 0
    assert "3 of 4 label maps are in" in capsys.readouterr().out
    after = maps(tmp_path / "out")
    assert [name for name in before if before[name] != after[name]] == ["Phantom_002.nii.gz"]


def test_shards_of_other_cases_are_refused(predict, phantom_folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(phantom_folder, data)
    assert predict(tmp_path / "out", "--shard", "1/2", data=data) == 0
    shutil.rmtree(data / "Phantom_001")
    assert predict(tmp_path / "out", "--shard", "2/2", data=data) == 2
    assert "All shards must divide the same cases: another began with 4, this one with 3" in capsys.readouterr().err
    assert not (tmp_path / "out" / "shards" / "2of2").exists()


def test_a_list_that_another_process_is_writing_is_waited_for(tmp_path):
    path = tmp_path / "shards" / "cases.json"
    path.parent.mkdir()
    path.touch()
    writer = threading.Timer(0.3, path.write_text, ['["a"]'])
    writer.start()
    agree_on_cases(tmp_path, ["a"])
    writer.join()
    with pytest.raises(InputError, match=r"or remove .*cases.json and begin again"):  # Nothing else is there yet.
        agree_on_cases(tmp_path, ["b"])


@pytest.mark.parametrize("words", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_what_is_no_shard_is_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(tmp_path), "--shard", words])
    assert "expected K/N with K from 1 to N" in capsys.readouterr().err


def test_shards_of_other_networks_than_the_folder_are_refused_before_they_begin(predict, tmp_path, capsys):
    assert predict(tmp_path) == 0
    for words in ([], ["--replace"]):
        assert predict(tmp_path, "--shard", "1/2", *words, network="other") == 2
        assert "shards join those of the same, whatever --replace says" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "shards").exists()
    assert predict(tmp_path, "--shard", "1/2") == 0


def test_after_a_merge_a_shard_has_nothing_left_to_predict(predict, tmp_path, capsys):
    for shard in ("1/2", "2/2"):
        assert predict(tmp_path, "--shard", shard) == 0
    assert main(["merge", str(tmp_path)]) == 0
    before = maps(tmp_path)
    capsys.readouterr()
    assert predict(tmp_path, "--shard", "1/2", "--resume") == 0
    assert f"4 of 4 label maps are in {tmp_path} already." in capsys.readouterr().out
    assert not (tmp_path / "shards").exists()
    (tmp_path / "Phantom_003.nii.gz").unlink()
    for shard in ("1/2", "2/2"):  # The case that is left is the first's share.
        assert predict(tmp_path, "--shard", shard, "--resume") == 0
    assert json.loads((tmp_path / "shards" / "cases.json").read_text()) == ["Phantom_003"]
    assert main(["merge", str(tmp_path)]) == 0
    assert maps(tmp_path) == before


def test_shards_that_began_before_the_merge_of_others_stay(predict, tmp_path):
    """Cases in OUT that were predicted at once do not change what the shards divide once they have begun."""
    assert predict(tmp_path, "--shard", "1/2") == 0
    assert predict(tmp_path, "--resume") == 0
    assert predict(tmp_path, "--shard", "2/2", "--resume") == 0
    assert len(json.loads((tmp_path / "shards" / "cases.json").read_text())) == 4
    assert main(["merge", str(tmp_path)]) == 0
    assert len(maps(tmp_path)) == 4


def test_a_merge_keeps_what_the_shards_say_nothing_of():
    before = {"cases": {"a": 1, "b": 2, "c": 3}, "left_out": {"d": "bad", "e": "bad"}}
    before |= {"pending": ["b", "c", "d", "f"], "data": ["x", "y"], "made_by": "an earlier one"}
    content = {"cases": {"b": 20, "d": 40}, "left_out": {"c": "now bad"}, "data": ["y", "z"], "pending": []}
    joined = _joined(before, content)
    assert joined["cases"] == {"a": 1, "b": 20, "d": 40}
    assert joined["left_out"] == {"e": "bad", "c": "now bad"}
    assert (joined["pending"], joined["data"]) == (["f"], ["x", "y", "z"])
    assert _joined({}, content) is content
