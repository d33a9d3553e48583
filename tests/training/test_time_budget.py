"""Minutes instead of epochs: the epochs are chosen to fit, and nothing else about a training changes."""

import time
from pathlib import Path

import pytest
from tiny_networks import TINY_CROP

from brats_tf.cli.main import main, parser
from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.errors import InputError, Preempted
from brats_tf.training import parallel, time_budget
from brats_tf.training.train import train

NAME = "embedding-plus-flair-t2"


def configs(**changes):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none", "augmentation": "none"} | changes
    return [Config.from_preset("embedding-plus", modalities=("flair", "t2"), **settings)]


@pytest.fixture
def steps_of(monkeypatch):
    """Sets what a step and a validation case take, whatever they take; the real ones are made all the same."""
    real = time_budget.measured

    def choose(step, validation=0.0):
        def measured(data, *others):
            found = real(data, *others)
            assert found[0] > 0 and (found[1] > 0) == bool(data.validation) and found[0] != found[1]
            return step, validation

        monkeypatch.setattr(time_budget, "measured", measured)

    return choose


@pytest.mark.slow
def test_epochs_fit_into_the_minutes_and_the_probe_leaves_no_trace(phantoms, tmp_path, steps_of, capsys):
    cases, given = phantoms[:2], TrainingOptions(minutes=10_000)
    steps_of(step=60 * 9_000 * 0.4 / len(cases))  # 0.4 of what is left after a tenth: two epochs and a half.
    (run,) = train(configs(), cases, runs=tmp_path / "minutes", options=given)
    assert "2 epoch(s) of 2 steps fit into the 10000 minutes that are left" in " ".join(capsys.readouterr().out.split())
    assert Config.load(run).training.epochs == 2
    assert Config.load(run).training.warmup_epochs == 0  # At most a quarter of the epochs.
    (plain,) = train(configs(epochs=2, warmup_epochs=0), cases, runs=tmp_path / "epochs")
    assert (run / "network.weights.h5").read_bytes() == (plain / "network.weights.h5").read_bytes()
    steps_of(step=1e-9)  # Another measurement would give thousands of epochs.
    train(configs(), cases, runs=tmp_path / "minutes", options=given)
    assert "already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_networks_share_the_minutes(phantoms, tmp_path, monkeypatch):
    """Those that are trained in one call; the time before the first step counts."""

    def refused(deadline, *others, networks):
        raise InputError(f"{(deadline - time.monotonic()) / networks}")

    monkeypatch.setattr("brats_tf.training.train.epochs_for", refused)
    two = [one.replace(modalities=names) for one in configs() for names in (("flair", "t2"), ("t1", "t2"))]
    with pytest.raises(InputError) as error:
        train(two, phantoms[:1], runs=tmp_path, options=TrainingOptions(minutes=100))
    assert 2900 < float(str(error.value)) < 2999.9


@pytest.mark.slow
def test_the_time_that_the_measurement_takes_counts(phantoms, tmp_path, monkeypatch):
    def slow(*others):
        monkeypatch.setattr(time_budget.time, "monotonic", lambda: now() + 40)
        return 30.0, 0.0

    now = time.monotonic
    monkeypatch.setattr(time_budget, "measured", slow)
    with pytest.raises(InputError, match=r"Received: 0(\.[0-3]\d*)? after the preparations"):
        train(configs(), phantoms[:1], runs=tmp_path, options=TrainingOptions(minutes=1))


@pytest.mark.slow
def test_a_run_goes_on_in_the_precision_that_it_began_in(phantoms, tmp_path, monkeypatch, capsys):
    """On another node of a cluster, whose processor has no bfloat16."""
    given, cases = configs(epochs=1, warmup_epochs=0, precision="auto", crop=(64, 64, 24)), phantoms[:1]
    for able in (True, False):
        monkeypatch.setattr("brats_tf.runtime.tensorflow.has_bfloat16", lambda able=able: able)
        (run,) = train(given, cases, runs=tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "already trained" in said and "many times slower than float32" in said
    assert Config.load(run).compute.precision == "bfloat16"
    train(given, cases, runs=tmp_path, options=TrainingOptions(restart=True))
    assert Config.load(run).compute.precision == "float32"


@pytest.mark.slow
def test_another_schedule_is_refused_as_what_it_is(phantoms, tmp_path, steps_of):
    steps_of(step=10.0)
    given, cases = {"runs": tmp_path, "options": TrainingOptions(minutes=5)}, phantoms[:1]
    train(configs(warmup_epochs=2), cases, **given)
    with pytest.raises(InputError, match="holds a run with .*schedule cosine instead of plateau"):
        train(configs(schedule="plateau", warmup_epochs=0), cases, **given)


@pytest.mark.large
def test_validation_counts(phantoms, tmp_path, steps_of):
    steps_of(step=60.0, validation=300.0)  # An epoch: 3 minutes, and 5 for the case that validates; the last case: 5.
    given = {"validation_split": 0.25, "validation_frequency": 1}
    (run,) = train(configs(**given), phantoms[:4], runs=tmp_path, options=TrainingOptions(minutes=25))
    assert Config.load(run).training.epochs == 2


@pytest.mark.large
def test_minutes_too_few_for_an_epoch_are_refused(phantoms, tmp_path, steps_of):
    steps_of(step=120.0)
    with pytest.raises(InputError, match=r"`minutes` must leave 4.4 for an epoch .*, 120 s a step. Received: [23]"):
        train(configs(), phantoms[:2], runs=tmp_path, options=TrainingOptions(minutes=3))
    assert not (Path(tmp_path) / NAME).exists()


def test_networks_that_share_few_gpus_share_the_minutes(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(parallel, "run_in_parallel", lambda commands, **given: started.append(commands) or {})
    words = ["train", "x", "--modality", "all", "--minutes", "60"]
    for gpus in ((0, 1), (0, 1, 2), (0, 1, 2, 3)):
        assert parallel.train_modalities(words, gpus, logs=tmp_path, minutes=60) == 0
    shares = [parser().parse_args(commands["t2"]).minutes for commands in started]
    assert shares == [30, 30, 60]
    parallel.train_modalities(words[:4], (0, 1), logs=tmp_path)
    assert started[-1]["t2"] == ["train", "x", "--modality", "t2"]


def test_networks_restarted_on_several_gpus_are_set_aside_once_they_begin_or_at_a_signal(monkeypatch, tmp_path):
    """One that is refused keeps what it has; after a signal the command without --restart must train the others."""
    runs = [tmp_path / f"embedding-{name}" for name in ("flair", "t1")]
    for run in runs:
        run.mkdir()
        (run / "config.json").write_text("old")
    started = []

    def refused(commands, **given):
        started.append(commands["t1"])
        return dict.fromkeys(commands, 2)

    def stopped(commands, **given):
        (tmp_path / "new").write_text("new")
        (tmp_path / "new").replace(runs[0] / "config.json")  # What the first one, which had begun, wrote.
        raise Preempted("Stopped by SIGTERM.")

    words = ["train", "x", "--modality", "all", "--restart"]
    monkeypatch.setattr(parallel, "run_in_parallel", refused)
    assert parallel.train_modalities(words, (0, 1), logs=tmp_path, restarted=runs) == 2
    assert started == [["train", "x", "--modality", "t1", "--restart"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding-flair", "embedding-t1"]
    monkeypatch.setattr(parallel, "run_in_parallel", stopped)
    with pytest.raises(Preempted):
        parallel.train_modalities(words, (0, 1), logs=tmp_path, restarted=runs)
    assert (runs[0] / "config.json").read_text() == "new" and not (runs[1] / "config.json").exists()
    assert (tmp_path / "embedding-t1.1" / "config.json").read_text() == "old"


def test_minutes_and_epochs_exclude_each_other(tmp_path, capsys):
    command = ["train", str(tmp_path), "--modality", "flair"]
    assert main([*command, "--minutes", "5", "--epochs", "3"]) == 2
    assert "--minutes chooses the number of epochs: leave --epochs out" in capsys.readouterr().err
    assert main([*command, "--start-from", "run", "--weights", "none"]) == 2
    assert "--start-from chooses all weights: leave --weights out. Received also none." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--start-from", ""])
    assert "--start-from: expected a path, received ''" in capsys.readouterr().err
    with pytest.raises(InputError, match="`start_from` must be a path. Received: ' '"):
        Config.from_preset("embedding", modalities=("t1",), start_from=" ")
