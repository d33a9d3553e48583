"""Grids of trainings, and several commands at once; the commands themselves are replaced here."""

import itertools
import json
import os
import signal
import sys
import threading
import time

import pytest
import sweeps
from sweeps import cells_of, read_grid, run_grid

from brats_tf.errors import InputError, Stopped
from brats_tf.evaluation.scores import METRICS
from brats_tf.training import parallel as side_by_side
from brats_tf.training.parallel import run_side_by_side

GRID = {"preset": ("paper", "plus"), "fold": ("0/2", "1/2"), "seed": (0, 1)}


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Makes a command run this Python code instead of `brats-tf`; its arguments are in `words`."""

    def make(code):
        path = tmp_path / "program.py"
        path.write_text(f"import json, os, pathlib, sys, time\nwords = sys.argv[1:]\n{code}")

        class Popen(side_by_side.subprocess.Popen):
            def __init__(self, command, **settings):
                super().__init__([sys.executable, str(path), *command[3:]], **settings)

        monkeypatch.setattr(side_by_side.subprocess, "Popen", Popen)

    return make


def test_each_device_has_one_command_at_a_time(program, tmp_path, capsys):
    program("print(os.environ['CUDA_VISIBLE_DEVICES'], time.time()); time.sleep(0.3); print(time.time())")
    commands = {name: ["train", name] for name in "abcde"}
    assert run_side_by_side(commands, devices=["4", "7"], logs=tmp_path / "logs") == {}
    spans = {}
    for name in commands:
        device, start, end = (tmp_path / "logs" / f"{name}.log").read_text().split()
        spans.setdefault(device, []).append((float(start), float(end)))
    assert set(spans) == {"4", "7"}
    for its in spans.values():
        its.sort()
        assert len(its) >= 2
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(its))


def test_a_command_that_fails_is_named_with_its_last_words_and_the_others_go_on(program, tmp_path, capsys):
    program("print('no such modality'); sys.exit(2 if words[0] == 'bad' else 0)")
    failed = run_side_by_side({"one": ["bad"], "two": ["good"]}, devices=[None], logs=tmp_path)
    assert failed == {"one": 2}
    said = capsys.readouterr().out
    assert f"one ended with exit code 2: no such modality (see {tmp_path / 'one.log'})" in said
    assert "two: done." in said


def test_a_signal_is_passed_on_and_nothing_new_begins(program, tmp_path):
    program(
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), os._exit(75)))\n"
        "print('on', flush=True); time.sleep(60)"
    )

    def tell():
        until = time.monotonic() + 20
        while not (tmp_path / "a.log").exists() or "on" not in (tmp_path / "a.log").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    with pytest.raises(Stopped, match="what ran has saved its state"):
        run_side_by_side({"a": [], "b": []}, devices=[None], logs=tmp_path)
    thread.join()
    assert "saved" in (tmp_path / "a.log").read_text()
    assert not (tmp_path / "b.log").exists()


def test_a_grid_has_a_cell_for_each_combination():
    cells = cells_of(GRID)
    assert len(cells) == 8
    assert list(cells)[1] == "preset=paper,fold=0of2,seed=1"
    assert cells["preset=plus,fold=1of2,seed=0"] == {"preset": "plus", "fold": "1/2", "seed": 0}


@pytest.mark.parametrize("name", ["missing", "../grid", "empty"])
def test_what_states_no_grid_is_refused(tmp_path, name):
    (tmp_path / "empty.py").write_text("GRID = {}\n")
    (tmp_path / "good.py").write_text('"""A grid."""\nGRID = {"seed": (0, 1)}\n')
    with pytest.raises(InputError, match=r"NAME must be an experiment with a grid: good|must state GRID"):
        read_grid(tmp_path, name)
    assert read_grid(tmp_path, "good") == ({"seed": (0, 1)}, {})


# What `brats-tf` would leave behind: a finished run, and scores that follow from preset and seed.
LEAVES = f"""
def given(name):
    return words[words.index(name) + 1]
runs = pathlib.Path(given('--runs'))
with open(runs.parents[1] / 'said', 'a') as file:
    print(words[0], runs.name, file=file)
if words[0] == 'train':
    assert given('--store') == str(runs.parent / 'store') and given('--epochs') == '2'
    (runs / 'flair').mkdir(parents=True, exist_ok=True)
    record = dict(status='finished', epochs=2, settings={{}}, data='x', validation=[], seconds=30)
    if not (runs / 'flair' / 'run.json').exists():
        (runs / 'flair' / 'run.json').write_text(json.dumps(record))
if words[0] == 'evaluate':
    results = pathlib.Path(given('--results'))
    results.mkdir(parents=True, exist_ok=True)
    score = 0.5 + 0.1 * ('plus' in runs.name) + 0.01 * ('seed=1' in runs.name)
    scores = {{metric: dict(mean=score, n=3) for metric in {sorted(METRICS)!r}}}
    scores = {{region: scores for region in ('WT', 'TC', 'ET')}}
    (results / 'summary.json').write_text(json.dumps(scores | dict(empty_rule='brats', left_out={{}})))
"""


def test_a_grid_runs_what_is_missing_and_sums_up_over_folds_and_seeds(program, tmp_path):
    program(LEAVES)
    places = {"data": tmp_path, "folder": tmp_path / "runs", "results": tmp_path / "results", "devices": [None]}
    options, cells = {"modality": "flair", "epochs": 2}, cells_of(GRID)
    (tmp_path / "runs").mkdir()
    summary, failed = run_grid("folds", dict(list(cells.items())[:2]), options, **places)
    said = (tmp_path / "runs" / "said").read_text().splitlines()
    assert failed == {}
    assert len(said) == 6
    summary, failed = run_grid("folds", cells, options, **places)
    said = (tmp_path / "runs" / "said").read_text().splitlines()[6:]
    assert said[:8] == [f"train {cell}" for cell in cells]  # Which keeps what is finished.
    assert said[8:14] == [f"predict {cell}" for cell in list(cells)[2:]]
    assert len(said) == 8 + 6 + 6
    assert [(row["cell"], row["runs"]) for row in summary["rows"]] == [("preset=paper", 4), ("preset=plus", 4)]
    paper, plus = (row["dice"]["ET"] for row in summary["rows"])
    assert (paper["mean"], paper["std"]) == (pytest.approx(0.505), pytest.approx(0.005))
    assert plus["mean"] == pytest.approx(0.605)
    assert summary["rows"][0]["seconds"] == 30
    assert json.loads((tmp_path / "results" / "folds" / "summary.json").read_text()) == summary
    sweeps.show_grid(summary)
