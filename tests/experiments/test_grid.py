"""Grids of trainings, and several commands at once; the commands themselves are replaced here."""

import hashlib
import itertools
import json
import os
import signal
import sys
import threading
import time

import grid as grids
import pytest
from grid import cells_of, read_grid, run_grid
from provenance import continued
from scored_results import write_results

from brats_tf.cli.main import parser
from brats_tf.errors import InputError, Preempted
from brats_tf.evaluation.scores import METRICS
from brats_tf.evaluation.statistics import summarise
from brats_tf.training import parallel as side_by_side
from brats_tf.training.parallel import run_in_parallel

GRID = {"preset": ["embedding", "embedding-plus"], "fold": [0, 1], "seed": [0, 1]}


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
    assert run_in_parallel(commands, devices=["4", "7"], logs=tmp_path / "logs") == {}
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
    failed = run_in_parallel({"one": ["bad"], "two": ["good"]}, devices=[None], logs=tmp_path)
    assert failed == {"one": 2}
    said = capsys.readouterr().out
    assert f"one failed with exit code 2: no such modality (see {tmp_path / 'one.log'})" in said
    assert "two: done." in said


def test_a_command_that_dies_in_silence_is_not_given_the_last_words_of_an_earlier_one(program, tmp_path, capsys):
    (tmp_path / "a.log").write_bytes(b"200 epochs, saved to runs\n")
    (tmp_path / "b.log").write_bytes(b"200 epochs, saved to runs\n")
    program(
        "sys.stdout.buffer.write(b'caf\\xe9'[: 9 * (words[0] == 'b')]); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    assert run_in_parallel({"a": ["a"], "b": ["b"]}, devices=[None], logs=tmp_path) == {"a": -9, "b": -9}
    said = " ".join(capsys.readouterr().out.split())
    assert "a failed with exit code -9 and printed nothing" in said
    assert "b failed with exit code -9: caf" in said


def test_a_signal_while_a_command_starts_reaches_it(program, tmp_path, monkeypatch):
    program("time.sleep(60)")
    popen = side_by_side.subprocess.Popen

    def interrupted(*given, **settings):
        process = popen(*given, **settings)
        os.kill(os.getpid(), signal.SIGTERM)  # Handled here, before the pool knows the process.
        return process

    monkeypatch.setattr(side_by_side.subprocess, "Popen", interrupted)
    began = time.monotonic()
    with pytest.raises(Preempted, match="all commands have saved"):
        run_in_parallel({"a": []}, devices=[None], logs=tmp_path)
    assert time.monotonic() - began < 20


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
    with pytest.raises(Preempted, match="all commands have saved their state"):
        run_in_parallel({"a": [], "b": []}, devices=[None], logs=tmp_path)
    thread.join()
    assert "saved" in (tmp_path / "a.log").read_text()
    assert not (tmp_path / "b.log").exists()


def test_a_signal_hides_no_failure(program, tmp_path):
    program("import signal\nsignal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(0.5); sys.exit(2)")
    with pytest.raises(InputError, match="Stopped by SIGTERM, and a failed: their logs are in"):
        run_in_parallel({"a": [], "b": []}, devices=[None], logs=tmp_path)
    assert not (tmp_path / "b.log").exists()


def test_a_grid_has_a_cell_for_each_combination():
    cells = cells_of(GRID)
    assert len(cells) == 8
    assert list(cells)[1] == "preset=embedding,fold=0,seed=1"
    assert cells["preset=embedding-plus,fold=1,seed=0"] == {"preset": "embedding-plus", "fold": 1, "seed": 0}


@pytest.mark.parametrize("name", ["missing", "../grid", "empty"])
def test_what_states_no_grid_is_refused(tmp_path, name):
    (tmp_path / "empty.json").write_text('{"grid": {}}')
    (tmp_path / "good.json").write_text('{"grid": {"seed": [0, 1]}}')
    with pytest.raises(InputError, match=r"The grid must be one of empty, good|must hold"):
        read_grid(tmp_path, name)
    assert read_grid(tmp_path, "good") == ({"seed": [0, 1]}, {})


def test_the_grids_of_the_repository_can_be_read():
    for path in grids.GRIDS.glob("*.json"):
        grid, options = read_grid(grids.GRIDS, path.stem)
        for settings in cells_of(grid).values():
            words = [str(word) for word in grids._command("train", options | settings, "DATA", path, path)]
            assert parser().parse_args(words).command == "train"


# What `brats-tf` would leave behind: a finished run, and scores that follow from preset and seed.
LEAVES = f"""
def given(name):
    return words[words.index(name) + 1]
runs = pathlib.Path(given('--runs')) if '--runs' in words else pathlib.Path(words[1]).parent
with open(runs.parents[1] / 'said', 'a') as file:
    print(words[0], runs.name, file=file)
if words[0] == 'train':
    assert given('--cache-dir') == str(runs.parent / 'cache') and given('--epochs') == '2'
    (runs / 'network-flair').mkdir(parents=True, exist_ok=True)
    record = dict(status='finished', epochs=2, settings={{}}, data='x', validation=[], seconds=30)
    if not (runs / 'network-flair' / 'run.json').exists():
        (runs / 'network-flair' / 'run.json').write_text(json.dumps(record))
if words[0] == 'evaluate':
    results = pathlib.Path(given('--results'))
    results.mkdir(parents=True, exist_ok=True)
    score = 0.5 + 0.1 * ('plus' in runs.name) + 0.01 * ('seed=1' in runs.name)
    figures = {summarise([])!r} | dict(mean=score, n=3)
    scores = dict.fromkeys({sorted(METRICS)!r}, figures)
    scores = {{region: scores for region in ('WT', 'TC', 'ET')}}
    (results / 'cases.csv').write_text('')
    made_by = dict(networks={{'network-flair': '0'}})
    more = dict(empty_rule='brats', left_out={{}}, made_by=made_by, without_truth=[], truth_sha256={{}})
    more['cases_sha256'] = '{hashlib.sha256().hexdigest()}'
    (results / 'summary.json').write_text(json.dumps(scores | more))
"""


@pytest.mark.slow
def test_a_grid_runs_what_is_missing_and_sums_up_over_folds_and_seeds(program, tmp_path):
    program(LEAVES)
    folders = {"data": tmp_path, "runs": tmp_path / "runs" / "folds", "results": tmp_path / "results" / "folds"}
    options, cells = {"modality": "flair", "epochs": 2}, cells_of(GRID)
    (tmp_path / "runs").mkdir()
    summary, failed = run_grid(dict(list(cells.items())[:2]), options, folders, devices=[None])
    said = (tmp_path / "runs" / "said").read_text().splitlines()
    assert failed == {}
    assert len(said) == 6
    summary, failed = run_grid(cells, options, folders, devices=[None])
    said = (tmp_path / "runs" / "said").read_text().splitlines()[6:]
    assert said[:8] == [f"train {cell}" for cell in cells]  # Which keeps what is finished.
    assert said[8:14] == [f"predict {cell}" for cell in list(cells)[2:]]
    assert len(said) == 8 + 6 + 6
    assert [(row["cell"], row["runs"]) for row in summary["rows"]] == [
        ("preset=embedding", 4),
        ("preset=embedding-plus", 4),
    ]
    paper, plus = (row["dice"]["ET"] for row in summary["rows"])
    assert (paper["mean"], paper["std"]) == (pytest.approx(0.505), pytest.approx(0.005))
    assert plus["mean"] == pytest.approx(0.605)
    assert summary["rows"][0]["seconds"] == 30
    assert json.loads((tmp_path / "results" / "folds" / "summary.json").read_text()) == summary
    grids.show_grid("folds", summary)


def test_an_option_that_a_grid_varies_cannot_be_set(tmp_path, capsys):
    (tmp_path / "seeds.json").write_text(json.dumps({"about": "x", "grid": {"seed": [0, 1]}}))
    code = grids.main(["seeds", str(tmp_path), "--grids", str(tmp_path), "--set", "seed=7", "--set", "epochs=1"])
    assert code == 2
    assert "--set must name options that the grid does not vary. Received: seed." in capsys.readouterr().err


def test_a_file_of_other_settings_or_that_names_none_is_not_continued(tmp_path):
    path = tmp_path / "measured.json"
    assert continued(path, {"crop": "64x64x36"}) == []
    path.write_text(json.dumps({"crop": "64x64x36", "runs": [1]}))
    assert continued(path, {"crop": "64x64x36"}) == [1]
    with pytest.raises(InputError, match="Received: crop 32x32x24, there 64x64x36"):
        continued(path, {"crop": "32x32x24"})
    with pytest.raises(InputError, match="Received: weights none, there not said"):
        continued(path, {"crop": "64x64x36", "weights": "none"})


def test_scores_of_other_options_are_not_taken(tmp_path):
    results, run = tmp_path / "results", tmp_path / "runs" / "network-flair"
    run.mkdir(parents=True)
    record = {"status": "finished", "epochs": 2, "settings": {}, "data": "x", "validation": [], "seconds": 30}
    (run / "run.json").write_text(json.dumps(record))
    os.utime(run / "run.json", (1, 1))
    write_results(results, {"A": (0.5, 1)}, made_by={"networks": {"network-flair": "0"}})
    assert not grids._is_scored(results, run.parent, {"modality": "flair"})  # Of an older version.
    (results / "options.json").write_text('{"modality": "flair", "fold": 1}')
    assert grids._is_scored(results, run.parent, {"modality": "flair", "fold": 1})
    assert not grids._is_scored(results, run.parent, {"modality": "all", "fold": 1})
    os.utime(run / "run.json")
    os.utime(results / "summary.json", (1, 1))
    assert not grids._is_scored(results, run.parent, {"modality": "flair", "fold": 1})


def test_cells_have_names_of_their_own():
    with pytest.raises(InputError, match="Two cells of the grid would have the same name, start-from=runs_a"):
        cells_of({"start-from": ["runs/a", "runs_a"]})
