import json
import subprocess

import pytest
from repository import REPOSITORY

from brats_tf.errors import InputError
from brats_tf.runs import table
from brats_tf.runs.record import git_commit, read_run_record
from brats_tf.runs.table import show_runs, summary_of


def write_run(folder, *, began, **changes):
    seed = changes.pop("seed", 0)
    settings = {"training": {"epochs": 4}, "compute": {"precision": "float32"}, "seed": seed}
    record = {
        "status": "finished",
        "epochs": 4,
        "seconds": 90.0,
        "peak_memory_gb": 1.25,
        "last": {"loss": 0.125},
        "device": "CPU",
        "data": "abc",
        "validation": [],
        "git_commit": "123",
        "began": began,
        "settings": settings,
    }
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record | changes))
    return folder


@pytest.fixture
def two(tmp_path):
    first = write_run(tmp_path / "flair", began="2026-01-02 00:00:00", seed=7)
    write_run(tmp_path / "old" / "flair", began="2026-01-01 00:00:00", status="training", epochs=2, data="xyz")
    rows = [(2, "a", "WT", 0.5), (2, "a", "TC", 0.5), (2, "a", "ET", 0.5)]
    rows += [(4, "a", "WT", 0.8), (4, "a", "TC", 0.6), (4, "a", "ET", 0.0)]
    lines = ["epoch,case,region,dice", *(",".join(map(str, row)) for row in rows)]
    (first / "validation.csv").write_text("\n".join(lines))
    return tmp_path


def test_runs_are_listed_oldest_first_with_the_best_validation(two, capsys):
    show_runs(two, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["status"], row["epochs"]) for row in rows] == [
        ("old/flair", "training", 2),
        ("flair", "finished", 4),
    ]
    assert rows[1]["best"] == {"WT": 0.5, "TC": 0.5, "ET": 0.5, "epoch": 2}
    assert rows[0]["best"] is None


@pytest.mark.parametrize(
    ("later", "epoch"),
    [({"WT": 0.9, "TC": 0.5, "ET": 0.4}, 4), ({"WT": 0.5, "TC": 0.5, "ET": 0.5}, 2), ({"WT": 0, "TC": 0, "ET": 1}, 2)],
)
def test_the_best_epoch_is_that_of_the_best_mean_and_of_several_the_first(later, epoch, tmp_path):
    run = write_run(tmp_path / "flair", began="2026-01-02 00:00:00")
    rows = [(2, "a", region, 0.5) for region in ("WT", "TC", "ET")] + [(4, "a", *one) for one in later.items()]
    lines = ["epoch,case,region,dice", *(",".join(map(str, row)) for row in rows)]
    (run / "validation.csv").write_text("\n".join(lines))
    assert summary_of(run, tmp_path)["best"]["epoch"] == epoch


def test_a_training_that_nobody_runs_is_interrupted(two, capsys, monkeypatch):
    monkeypatch.setattr(table.console, "width", 200)
    show_runs(two)
    assert "interrupted" in capsys.readouterr().out


def test_what_differs_is_shown(two, capsys):
    show_runs(two)
    said = " ".join(capsys.readouterr().out.split())
    for words in ("0.1250", "1.5 min", "2/4", "seed", "abc", "xyz"):
        assert words in said
    assert not summary_of(two / "old" / "flair", two)["running"]
    lock = {"host": "elsewhere", "process": 1, "began": 0.0, "command": "x"}
    (two / "old" / "flair" / ".lock").write_text(json.dumps(lock))
    assert summary_of(two / "old" / "flair", two)["running"]  # As far as can be known.
    assert "precision │ float32" not in said  # The same in both.


def test_a_damaged_record_is_named_and_left_out(two, capsys):
    (two / "flair" / "run.json").write_text("{}")
    show_runs(two, as_json=True)
    out, said = capsys.readouterr()
    assert len(json.loads(out)) == 1
    assert f"Left out: {two / 'flair' / 'run.json'} is no readable record of a run" in said
    with pytest.raises(InputError, match="missing"):
        read_run_record(two / "flair")


def test_a_validation_that_is_cut_off_is_named_and_the_others_are_shown(two, capsys):
    with open(two / "flair" / "validation.csv", "a") as file:
        file.write("\n5,a,WT,0.8")
    show_runs(two, as_json=True)
    said = capsys.readouterr()
    assert "a region has other epochs, or fewer scores, than another" in said.err
    assert [row["run"] for row in json.loads(said.out)] == ["old/flair"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no run with a run.json"):
        show_runs(tmp_path)


def test_a_run_alone_has_its_folder_s_name(two):
    assert summary_of(two / "flair", two / "flair")["run"] == "flair"


def test_the_commit_of_this_checkout_is_known():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() in (head, f"{head}+")
