import json
import os

import pytest
import tensorflow as tf

from brats_tf.errors import InputError, WriteError
from brats_tf.runs.folder import describe_differences, set_aside
from brats_tf.training.checkpoints import Checkpoints, _hash

IDENTITY = {"config": {"seed": 0, "epochs": 3}, "data": "abc", "validation": []}


def variables(value=0.0):
    return [tf.Variable([value, value]), tf.Variable(int(value), dtype=tf.int64)]


def saved(run, *places, identity=IDENTITY):
    """A run with a checkpoint at each place, whose variables are its number."""
    ours = variables()
    checkpoints = Checkpoints(run, ours, identity)
    for number, (epoch, step) in enumerate(places, start=1):
        ours[0].assign([number, number])
        ours[1].assign(number)
        checkpoints.save(epoch, step, {"History": {"rows": number}})
    return checkpoints


def loaded(run, identity=IDENTITY):
    """(what `load` returns, the number in the variables)."""
    ours = variables()
    found = Checkpoints(run, ours, identity).load()
    assert ours[0].numpy().tolist() == [float(ours[1].numpy())] * 2
    return found, int(ours[1].numpy())


def test_the_last_two_are_kept_and_the_newest_comes_back(tmp_path):
    saved(tmp_path, (0, 9), (0, 10), (9, 0), (10, 0))
    assert [path.name for path in Checkpoints(tmp_path, [], IDENTITY).found()] == [
        "epoch-00009-step-000000",
        "epoch-00010-step-000000",
    ]
    assert loaded(tmp_path) == ((10, 0, {"History": {"rows": 4}}), 4)


def test_damaged_ones_of_a_later_place_do_not_displace_new_ones(tmp_path):
    for folder in saved(tmp_path, (8, 0), (9, 0)).found():
        (folder / "state.json").write_text("{")
    assert loaded(tmp_path) == (None, 0)
    saved(tmp_path, (1, 0), (2, 0), (3, 0))
    assert [folder.name[:11] for folder in Checkpoints(tmp_path, [], IDENTITY).found()] == [
        "epoch-00002",
        "epoch-00003",
    ]
    assert loaded(tmp_path)[0][0] == 3


def test_without_one_there_is_nothing_to_go_on_from(tmp_path):
    assert loaded(tmp_path) == (None, 0)


def harm(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: harm(next(folder.glob("variables.data*"))),
            "variables.data-00000-of-00001 is damaged: expected",
        ),
        (lambda folder: harm(folder / "variables.index"), "variables.index is damaged: expected the SHA-256"),
        (lambda folder: (folder / "variables.index").unlink(), "received no file"),
        (lambda folder: (folder / "state.json").unlink(), "its state.json could not be read"),
        (lambda folder: (folder / "state.json").write_text(""), "its state.json could not be read"),
        (lambda folder: (folder / "state.json").write_text("[1, 2]"), "its state.json could not be read"),
        (lambda folder: change(folder, epoch="1"), "must hold a place and a state. Received: '1'"),
        (lambda folder: change(folder, callbacks=None), "must hold a place and a state"),
        (lambda folder: change(folder, identity=None), "its state.json could not be read"),
        (lambda folder: change(folder, files={"../../x": "0"}), "x is damaged"),
        (lambda folder: change(folder, rehash=False, epoch=2**40), "could not be read, ValueError: it was changed"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, capsys, damage, sentence):
    saved(tmp_path, (1, 0), (2, 0))
    newest = tmp_path / "checkpoints" / "epoch-00002-step-000000"
    damage(newest)
    assert loaded(tmp_path) == ((1, 0, {"History": {"rows": 1}}), 1)
    said = capsys.readouterr().out
    assert f"The checkpoint {newest} is not used: " in said
    assert sentence in said


def change(folder, rehash=True, **fields):
    state = json.loads((folder / "state.json").read_text()) | fields
    own = state.pop("sha256")
    (folder / "state.json").write_text(json.dumps(state | {"sha256": _hash(state) if rehash else own}))


def test_one_of_another_training_is_named_and_not_used(tmp_path, capsys):
    saved(tmp_path, (1, 0))
    other = {"config": {"seed": 1, "epochs": 3}, "data": "abc", "validation": []}
    assert loaded(tmp_path, other) == (None, 0)
    assert "is not used: it belongs to another training, seed 0 instead of 1." in capsys.readouterr().out


def test_one_that_could_not_be_read_is_written_again(tmp_path):
    checkpoints = saved(tmp_path, (1, 0), (2, 0))
    harm(tmp_path / "checkpoints" / "epoch-00002-step-000000" / "variables.index")
    checkpoints.save(2, 0, {})
    assert loaded(tmp_path) == ((2, 0, {}), 2)


def test_one_with_other_variables_is_refused(tmp_path):
    saved(tmp_path, (1, 0))
    with pytest.raises(InputError, match="must hold the variables of this network"):
        Checkpoints(tmp_path, [tf.Variable([1.0, 2.0, 3.0]), tf.Variable(0, dtype=tf.int64)], IDENTITY).load()


def test_a_full_disk_is_a_sentence_and_nothing_is_half_written(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, (1, 0))

    def full(folder):
        (folder / "variables.data").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write", full)
    with pytest.raises(WriteError, match="epoch-00002-step-000000 could not be written: No space left on device"):
        checkpoints.save(2, 0, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch-00001-step-000000"]
    assert loaded(tmp_path)[1] == 1


def test_what_does_not_write_leaves_nothing(tmp_path):
    Checkpoints(tmp_path, variables(), IDENTITY, writes=False).save(1, 0, {})
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_training_removes_them(tmp_path):
    saved(tmp_path, (1, 0)).remove()
    assert not (tmp_path / "checkpoints").exists()


def test_of_long_lists_only_the_difference_is_named():
    ids = [f"case {number}" for number in range(100)]
    differ = lambda before, now: describe_differences({"validation": before}, {"validation": now})  # noqa: E731
    assert differ(ids[:-1], ids) == "validation lacking case 99"
    assert differ(ids, ids[1:]) == "validation having also case 0"
    assert differ(ids[:6], ids[4:7]).endswith("having also case 0, case 1, case 2, case 3 and lacking case 6")
    assert differ(ids, ids[::-1]) == "validation in another order"
    assert differ(["a"], ["b"]) == "validation ['a'] instead of ['b']"


def test_what_differs_is_named():
    assert describe_differences(IDENTITY, IDENTITY) == ""
    there = {"config": {"seed": 0, "old": 1}, "data": "x", "validation": []}
    assert (
        describe_differences(there, IDENTITY)
        == "epochs None instead of 3, data x instead of abc, old 1 instead of None"
    )
    unused = {**IDENTITY, "config": {**IDENTITY["config"], "new": None}}  # A setting that an older run did not have.
    assert describe_differences(IDENTITY, unused) == ""


def test_a_run_without_its_settings_is_set_aside_too(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    set_aside(tmp_path / "run")
    assert (tmp_path / "run.1" / "run.json").read_text() == "{}"
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_clock_that_is_set_back_does_not_keep_an_old_one(tmp_path):
    for folder in saved(tmp_path, (1, 0), (2, 0)).found():
        os.utime(folder, (4e9, 4e9))
    ours = variables()
    later = Checkpoints(tmp_path, ours, IDENTITY)
    assert later.load()[:2] == (2, 0)
    later.save(3, 0, {})
    assert [folder.name[:11] for folder in later.found()] == ["epoch-00002", "epoch-00003"]
    later.save(4, 0, {})
    assert [folder.name[:11] for folder in later.found()] == ["epoch-00003", "epoch-00004"]
