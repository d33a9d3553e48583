"""Minutes instead of epochs: the epochs are chosen to fit, and nothing else about a training changes."""

from pathlib import Path

import pytest
from tiny_networks import TINY_CROP

from brats_tf.cli.main import parser
from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.errors import InputError
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
        def measured(*arguments):
            real(*arguments)
            return step, validation

        monkeypatch.setattr(time_budget, "measured", measured)

    return choose


@pytest.mark.slow
def test_epochs_fit_into_the_minutes_and_the_probe_leaves_no_trace(phantoms, tmp_path, steps_of, capsys):
    cases, given = phantoms[:2], TrainingOptions(minutes=10_000)
    steps_of(step=60 * 9_000 * 0.4 / len(cases))  # 0.4 of what is left after a tenth: two epochs and a half.
    (run,) = train(configs(), cases, runs=tmp_path / "minutes", options=given)
    assert "2 epoch(s) of 2 steps fit into 10000 minutes" in capsys.readouterr().out
    assert Config.load(run).training.epochs == 2
    assert Config.load(run).training.warmup_epochs == 0  # At most a quarter of the epochs.
    (plain,) = train(configs(epochs=2, warmup_epochs=0), cases, runs=tmp_path / "epochs")
    assert (run / "network.weights.h5").read_bytes() == (plain / "network.weights.h5").read_bytes()
    steps_of(step=1e-9)  # Another measurement would give thousands of epochs.
    train(configs(), cases, runs=tmp_path / "minutes", options=given)
    assert "already trained" in capsys.readouterr().out


@pytest.mark.large
def test_validation_counts(phantoms, tmp_path, steps_of):
    steps_of(step=60.0, validation=300.0)  # An epoch: 3 minutes, and 5 for the case that validates; the last case: 5.
    given = {"validation_split": 0.25, "validation_frequency": 1}
    (run,) = train(configs(**given), phantoms[:4], runs=tmp_path, options=TrainingOptions(minutes=25))
    assert Config.load(run).training.epochs == 2


@pytest.mark.large
def test_minutes_too_few_for_an_epoch_are_refused(phantoms, tmp_path, steps_of):
    steps_of(step=120.0)
    with pytest.raises(InputError, match=r"`minutes` must leave 4.4 for an epoch .*, 120.0 s a step. Received: [23]"):
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
