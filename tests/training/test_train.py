import csv
import dataclasses
import errno
import gc
import json
import math
import os
import re
import shutil
import signal
import time
from contextlib import nullcontext

import h5py
import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tiny_networks import TINY_CROP

from brats_tf.cli.main import main
from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.data.discovery import find_cases
from brats_tf.data.splits import Split, split_cases
from brats_tf.errors import InputError, Preempted, WriteError
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.models import winograd
from brats_tf.models.build import build_network, build_with_weights
from brats_tf.models.planes import with_planes
from brats_tf.models.remat import classifiers
from brats_tf.pipeline.stream import Order, training_dataset, training_stream
from brats_tf.preprocessing import fill_cache
from brats_tf.preprocessing.cache import Cache, CachedCase, CacheSettings
from brats_tf.runs.network import load_network, load_weights, save_weights
from brats_tf.runs.record import data_hash, read_run_record
from brats_tf.runtime import tensorflow
from brats_tf.runtime.console import progress_bar
from brats_tf.runtime.files import sha256_of
from brats_tf.training import ready_network
from brats_tf.training import train as train_module
from brats_tf.training.callbacks import RunRecord, StopOnNonFinite
from brats_tf.training.epoch_files import SaveWeights, ShowProgress
from brats_tf.training.loop import make_trainer
from brats_tf.training.optimisation import (
    EMA_MOMENTUM,
    FusedAdam,
    averaged_weights,
    compile_network,
    learning_rate_at,
    learning_rate_callback,
    make_optimiser,
)
from brats_tf.training.train import _explain_errors, train
from brats_tf.training.training_data import TrainingData
from brats_tf.training.validation import VALIDATION_DICE, check_validation


def tiny(modality="flair", **changes):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none", "epochs": 2, "learning_rate": 1e-3}
    return Config.from_preset("embedding", **({"modalities": (modality,)} | settings | changes))


def weights_of(run):
    arrays = {}
    with h5py.File(run / "network.weights.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


def assert_same_run(first, second):
    assert (first / "history.csv").read_bytes() == (second / "history.csv").read_bytes()
    mine, theirs = weights_of(first), weights_of(second)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """FLAIR and T1, trained one after another in one call."""
    runs = tmp_path_factory.mktemp("runs")
    return train([tiny("flair"), tiny("t1")], phantoms, runs=runs, cache_dir=runs / "cache")


def test_a_run_holds_config_weights_and_history(trained):
    flair, t1 = trained
    assert (flair.name, t1.name) == ("embedding-flair", "embedding-t1")
    assert sorted(path.name for path in flair.iterdir()) == [
        "config.json",
        "history.csv",
        "network.weights.h5",
        "run.json",
        "split.json",
        "tensorboard",
        "training.png",
    ]
    assert Config.load(flair) == tiny("flair")
    rows = list(csv.DictReader((flair / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    pulse = {"planes_live", "planes_std", "squeeze_gradient"}
    assert set(rows[0]) >= {"loss", "dice_wt", "dice_tc", "dice_et", "learning_rate", *pulse}
    record = read_run_record(flair)
    assert record["initial_weights"]["origin"].startswith("random weights")
    assert len(record["initial_weights"]["classifier_sha256"]) == 64
    assert record["collapsed_epochs"] == [] and record["last"]["planes_live"] == float(rows[-1]["planes_live"])
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_alone_or_after_another_network(trained, phantoms, tmp_path):
    (alone,) = train([tiny("t1")], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    assert_same_run(alone, trained[1])


@pytest.mark.slow
def test_with_half_of_the_multiplications_too(phantoms, tmp_path, monkeypatch):
    for least in ("LEAST_CHANNELS", "LEAST_MULTIPLY_ADDS"):
        monkeypatch.setattr(winograd, least, 0)
    convolve, calls = winograd.convolve, []
    monkeypatch.setattr(winograd, "convolve", lambda *values: calls.append(values) or convolve(*values))
    runs = [train([tiny("t1")], phantoms[:2], runs=tmp_path / name)[0] for name in ("first", "second")]
    assert len(calls) > 20
    assert_same_run(*runs)


@pytest.mark.slow
def test_a_training_and_a_prediction_leave_no_graph_behind(phantoms, tmp_path):
    def graphs():
        gc.collect()
        return {id(one) for one in gc.get_objects() if isinstance(one, FuncGraph)}

    before = graphs()
    runs = train([tiny("t1", epochs=1)], phantoms, runs=tmp_path)
    predictors = load_ensemble(runs)
    assert not predict_cases(predictors, phantoms[:1], out=tmp_path / "out")
    assert graphs() - before  # The predictor's.
    del predictors
    assert not graphs() - before


@pytest.mark.large
def test_another_seed_gives_other_numbers(trained, phantoms, tmp_path):
    (other,) = train([tiny("flair", seed=1)], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    assert (other / "history.csv").read_bytes() != (trained[0] / "history.csv").read_bytes()


def test_the_saved_weights_are_loaded(trained):
    _, network = load_network(trained[0])
    saved = np.concatenate([values.ravel() for values in weights_of(trained[0]).values()])
    loaded = np.concatenate([values.ravel() for values in network.get_weights()])
    np.testing.assert_array_equal(np.sort(saved), np.sort(loaded))


def test_the_weights_of_each_epoch_replace_those_before(tmp_path):
    volume = keras.Input((2,))
    network = keras.Model(volume, keras.layers.Dense(2)(keras.layers.Dense(2)(volume)))
    callback = SaveWeights(tmp_path, network, nullcontext)
    for epoch in range(2):
        network.set_weights([values + 1 for values in network.get_weights()])
        callback.on_epoch_end(epoch)
        again = keras.models.clone_model(network)
        again.load_weights(tmp_path / "network.weights.h5")
        for mine, other in zip(again.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_a_worse_epoch_after_a_resume_does_not_become_the_best(tmp_path):
    volume = keras.Input((2,))
    network = keras.Model(volume, keras.layers.Dense(2)(volume))
    before = SaveWeights(tmp_path, network, nullcontext)
    before.on_epoch_end(0, {VALIDATION_DICE: 0.5})
    best = (tmp_path / "best.weights.h5").read_bytes()
    resumed = SaveWeights(tmp_path, network, nullcontext)
    resumed.restore(json.loads(json.dumps(before.state())))
    network.set_weights([values + 1 for values in network.get_weights()])
    resumed.on_epoch_end(1, {VALIDATION_DICE: 0.4})
    assert (tmp_path / "best.weights.h5").read_bytes() == best
    resumed.on_epoch_end(2, {VALIDATION_DICE: 0.6})
    assert (tmp_path / "best.weights.h5").read_bytes() != best


def test_a_smaller_last_batch_counts_for_less_in_the_mean_of_the_loss():
    config, random = tiny(batch_size=2), np.random.default_rng(0)
    trainer = make_trainer(with_planes(build_network(config)), config)
    trainer.optimizer.learning_rate = 0.0
    volumes = random.standard_normal((3, *TINY_CROP, 1)).astype(np.float32)
    targets = (random.random((3, *TINY_CROP, 3)) < 0.1).astype(np.float32)
    means = []
    for size in (1, 2):
        trainer.reset_metrics()
        for start in range(0, 3, size):
            trainer.learn(volumes[start : start + size], targets[start : start + size])
        means.append(trainer.logs()["loss"])
    np.testing.assert_allclose(*means, rtol=1e-5)


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_the_authors_preset_trains_on_stacked_modalities(phantoms, tmp_path):
    config = Config.from_preset("embedding-authors", crop=TINY_CROP, backbone="tiny", weights="none", epochs=1)
    (run,) = train([config], phantoms[:2], runs=tmp_path, cache_dir=tmp_path / "cache")
    assert run.name == "embedding-authors-flair-t1-t1ce-t2"
    assert (run / "network.weights.h5").is_file()


@pytest.mark.slow
def test_bad_cases_are_all_named_and_nothing_is_trained(phantoms, damaged, tmp_path):
    with pytest.raises(InputError) as caught:
        train([tiny()], [*phantoms, *damaged], runs=tmp_path / "runs", cache_dir=tmp_path / "cache")
    *sentences, last = str(caught.value).splitlines()
    assert [sentence.split(":")[0] for sentence in sentences] == ["Case no_flair", "Case truncated"]
    assert last.startswith("2 of 6 cases cannot be used. Fix them")
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_bad_cases_can_be_left_out_and_the_first_line_says_what_is_used(phantoms, damaged, tmp_path, capsys):
    train(
        [tiny(epochs=1)],
        [phantoms[0], *damaged],
        runs=tmp_path,
        cache_dir=tmp_path / "cache",
        options=TrainingOptions(skip_invalid=True),
    )
    said = capsys.readouterr().out
    assert "Left out: Case truncated" in said
    line = next(line for line in said.splitlines() if line.startswith("Training embedding-flair"))
    for words in (
        "(embedding, tiny): 1 cases, crop 32x32x24",
        "parameters",
        "random weights, batch norm",
        "on CPU",
        "GB of memory",
    ):
        assert words in line


def test_only_an_error_about_a_file_is_one_about_the_cache(tmp_path):
    volume, classes = tmp_path / "my cache" / "Case_1-flair-0123.volume", tmp_path / "Case_1-seg-0123.classes"
    volume.parent.mkdir()
    for path, size in ((volume, 4), (classes, 1)):
        path.write_bytes(bytes(size * math.prod(TINY_CROP)))
    data = TrainingData(tiny(), None, [CachedCase("Case_1", {"flair": volume}, classes, ())], [])

    def fail(kind, message="Input to reshape is a tensor with 3 values"):
        with _explain_errors(data, 1):
            raise kind(None, None, message)

    for message in ("Input to reshape", "Reading input as constant is not supported. Xla shape: s64[3]"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(message)):
            fail(tf.errors.InvalidArgumentError, message)
    classes.write_bytes(b"cut")
    with pytest.raises(InputError, match=f"cached case {re.escape(str(classes))} could not be read"):
        fail(tf.errors.InvalidArgumentError)
    volume.unlink()
    with pytest.raises(InputError, match=f"cached case {re.escape(str(volume))} could not be read"):
        fail(tf.errors.NotFoundError)


def test_bad_validation_cases_can_be_left_out_too(phantoms, damaged, capsys):
    cases = [phantoms[0], *damaged]
    with pytest.raises(InputError, match="Case no_flair"):
        check_validation(tiny(), cases, [])
    assert check_validation(tiny(), cases, [], skip_invalid=True) == phantoms[:1]
    assert capsys.readouterr().out.count("Left out: Case ") == 2
    with pytest.raises(InputError, match="No validation case can be used. Received: 2"):
        check_validation(tiny(), damaged, [], skip_invalid=True)


def test_children_in_the_numbers_of_2024_do_not_validate_as_those_of_2023(phantoms, tmp_path, capsys):
    """One case with edema, 4 there, shows it of the others too."""
    for number, value in ((1, 1), (2, 4)):
        name = f"BraTS-PED-{number:05}-000"
        folder = tmp_path / name
        folder.mkdir()
        for part, suffix in (("flair", "t2f"), ("seg", "seg")):
            image = nib.load(phantoms[0].require(part))
            voxels = np.asanyarray(image.dataobj)
            voxels = np.where(voxels > 0, value, 0).astype(np.uint8) if part == "seg" else voxels
            nib.save(nib.Nifti1Image(voxels, image.affine), folder / f"{name}-{suffix}.nii.gz")
    cases, _ = find_cases(tmp_path)
    with pytest.raises(InputError, match="No validation case can be used. Received: 2"):
        check_validation(tiny(), cases, [], skip_invalid=True)
    assert "Case BraTS-PED-00001-000: labels of other cases do not fit its layout" in capsys.readouterr().out


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_a_kill_while_a_run_is_created_leaves_nothing_in_the_way(phantoms, tmp_path, monkeypatch):
    given = {"runs": tmp_path, "cache_dir": tmp_path / "cache"}
    for cls in (Config, Split):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(cls, "save", interrupt)
            train([tiny(epochs=1)], phantoms[:1], **given)
    (run,) = train([tiny(epochs=1)], phantoms[:1], **given)
    assert read_run_record(run)["status"] == "finished"


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_loss_that_is_no_number_stops():
    guard = StopOnNonFinite(lambda epoch, step: [f"case {epoch} {step}"])
    guard.on_epoch_begin(2)
    guard.on_train_batch_end(0, {"loss": 0.5})
    with pytest.raises(InputError, match="received nan in epoch 3, step 5, for case 2 4."):
        guard.on_train_batch_end(4, {"loss": float("nan")})


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_the_learning_rate_falls_by_ten_on_a_plateau(phantoms, tmp_path):
    # A learning rate of nearly nothing cannot improve the loss much; two epochs without improvement are the limit.
    config = tiny(epochs=6, learning_rate=1e-12, plateau_patience=2)
    (run,) = train([config], phantoms[:1], runs=tmp_path, cache_dir=tmp_path / "cache")
    rates = [float(row["learning_rate"]) for row in csv.DictReader((run / "history.csv").read_text().splitlines())]
    losses = [float(row["loss"]) for row in csv.DictReader((run / "history.csv").read_text().splitlines())]
    best, waited, rate = np.inf, 0, 1e-12
    for loss, received in zip(losses, rates, strict=True):
        np.testing.assert_allclose(received, rate, rtol=1e-5)
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 2:
            rate, waited = rate / 10, 0
    assert min(rates) < 1e-12


def test_weights_of_another_network_are_refused(trained, tmp_path):
    other = build_network(tiny(modalities=("t1", "t2")))
    with pytest.raises(InputError, match="must hold the weights of the network that its config.json describes"):
        load_weights(other, trained[0])
    with pytest.raises(InputError, match="network.weights.h5 is missing. Train it first"):
        load_weights(other, tmp_path)


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_a_diverging_training_stops_in_a_sentence(phantoms, tmp_path):
    with pytest.raises(InputError, match="The loss must be finite; received"):
        train([tiny(learning_rate=1e30, epochs=5)], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")


@pytest.mark.large
@pytest.mark.parametrize(
    "backbone", ["convnext_tiny", "resnet34", "seresnet50", "densenet121", "mobilenetv3large", "vgg16"]
)
def test_other_families_learn(backbone, phantoms, tmp_path):
    """Twenty steps on phantoms with random weights: the loss falls."""
    config = tiny(backbone=backbone, crop=(64, 64, 24), epochs=5)
    (run,) = train([config], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    losses = [float(row["loss"]) for row in rows]
    print(f"{backbone}: loss {' '.join(f'{loss:.3f}' for loss in losses)}")
    assert len(losses) * len(phantoms) == 20
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(("able", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_training_knows_which_number_format_auto_stands_for(able, precision, tmp_path, monkeypatch):
    def end(configs, devices):
        raise InputError(configs[0].compute.precision)

    monkeypatch.setattr(tensorflow, "has_bfloat16", lambda: able)
    monkeypatch.setattr("brats_tf.training.train.check_devices", end)
    with pytest.raises(InputError, match=precision):
        train([tiny(precision="auto")], [], runs=tmp_path)


def test_the_bar_begins_where_a_training_goes_on():
    with progress_bar() as bar:
        progress = ShowProgress("flair", bar, total=4, done=3)
        progress.on_train_begin()
        assert (bar.tasks[0].total, bar.tasks[0].completed) == (4, 3)


def test_fused_adam_is_keras_s_adam():
    gradients = np.random.default_rng(0).normal(size=(20, 50)).astype("float32")
    found = []
    for kind in (FusedAdam, keras.optimizers.Adam):
        weight = keras.Variable(np.ones(50, "float32"))
        optimiser = kind(1e-3)
        optimiser.build([weight])
        for gradient in gradients:
            optimiser.apply([keras.ops.convert_to_tensor(gradient)])
        found.append([weight.numpy(), *(value.numpy() for value in optimiser.variables)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("preset", "optimizer"), [("embedding", FusedAdam), ("embedding-authors", keras.optimizers.Nadam)]
)
def test_each_preset_has_its_optimiser(preset, optimizer):
    config = Config.from_preset(preset, modalities=("t1",), crop=TINY_CROP, backbone="tiny", weights="none")
    network, _ = build_with_weights(config)
    compile_network(network, config)
    assert isinstance(network.optimizer, optimizer)
    assert float(network.optimizer.learning_rate) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("optimizer", "rate", "keep"),
    [
        ("adam", 0.25, "all"),
        ("adam", 0.25, "block"),
        ("nadam", 0.0, "block"),
        *(
            pytest.param(*one, "all", marks=pytest.mark.large)
            for one in (("adam", 1.0), ("adam", 0.0), ("nadam", 0.25), ("nadam", 0.0))
        ),
    ],
)
@pytest.mark.slow
def test_the_classifier_learns_at_its_own_rate(optimizer, rate, keep):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none"}
    config = Config.from_preset(
        "embedding", modalities=("t1",), optimizer=optimizer, classifier_rate=rate, learning_rate=1e-3, **settings
    )
    network, _ = build_with_weights(config)
    (classifier,) = classifiers(network)
    inside = {id(one) for one in classifier.trainable_variables}
    trainer = make_trainer(with_planes(network, keep=keep), config)
    trainer.prepare(tf.distribute.get_strategy(), jit=False)
    before = [one.numpy() for one in network.variables]
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    trainer.step((volume, np.ones((1, *TINY_CROP), np.uint8), np.zeros((1, 2), np.int64)))
    change = {True: 0.0, False: 0.0}
    for variable, old in zip(network.variables, before, strict=True):
        key = id(variable) in inside
        change[key] = max(change[key], np.abs(variable.numpy() - old).max())
    assert change[False] > 5e-4
    assert change[True] == pytest.approx(rate * change[False], rel=0.05)  # Adam's first step is as long as the rate.


def test_a_full_disk_while_saving_is_a_sentence(tmp_path, monkeypatch):
    inputs = keras.Input((1,))
    callback = SaveWeights(tmp_path, keras.Model(inputs, inputs), nullcontext)

    def fail(path):
        path.write_bytes(b"half")
        raise RuntimeError("Can't decrement id ref count")

    monkeypatch.setattr(callback.bare, "save_weights", fail)
    with pytest.raises(InputError, match="network.weights.h5 could not be written"):
        callback.on_epoch_end(0)
    monkeypatch.setattr(shutil if not hasattr(os, "posix_fallocate") else os, *full_disk())
    with pytest.raises(InputError, match="MB could not be written to .*: No space left on device"):
        callback.on_epoch_end(0)  # Before HDF5 begins.
    assert list(tmp_path.iterdir()) == []


def full_disk():
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return ("posix_fallocate" if hasattr(os, "posix_fallocate") else "disk_usage"), fail


def test_the_split_of_a_run_says_what_it_was_trained_on(trained, phantoms):
    split = Split.load(trained[0])
    assert (split.how, split.training, split.validation) == ("all", [case.id for case in phantoms], [])


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_held_out_cases_are_not_trained_on(phantoms, damaged, tmp_path):
    config = tiny(epochs=1, folds=2, fold=0)
    (run,) = train([config], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    split = Split.load(run)
    assert len(split.training) == len(split.validation) == 2
    prepared = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert prepared == set(split.training)


@pytest.mark.large
@pytest.mark.usefixtures("small")
def test_augmented_cases_train_and_a_seed_repeats_them(phantoms, tmp_path):
    config = tiny(epochs=1, augmentation="albunet-authors")
    runs = [
        train([config], phantoms, runs=tmp_path / name, cache_dir=tmp_path / "cache")[0] for name in ("first", "second")
    ]
    assert_same_run(*runs)
    (plain,) = train([tiny(epochs=1)], phantoms, runs=tmp_path / "plain", cache_dir=tmp_path / "cache")
    assert (plain / "history.csv").read_bytes() != (runs[0] / "history.csv").read_bytes()


@pytest.mark.large
def test_a_network_that_augments_in_its_step_learns_what_finished_batches_give(phantoms, tmp_path):
    cache = Cache(tmp_path)
    stored = [cache.add(case, ("flair", "seg"), CacheSettings(TINY_CROP))[0] for case in phantoms]
    config, losses = tiny(augmentation="nnunet-like"), []
    for in_step in (False, True):
        keras.utils.set_random_seed(0)
        network, _ = build_with_weights(config)
        if in_step:
            network = make_trainer(with_planes(network), config)
        compile_network(network, config)
        network.run_eagerly = True
        stream = training_stream(stored, Order(batch_size=2), modalities=("flair",), crop=TINY_CROP)
        dataset = stream if in_step else training_dataset(stream, outputs="regions", augmentation="nnunet-like")
        losses.append(network.fit(dataset, steps_per_epoch=2, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_the_rate_rises_and_falls_as_its_schedule_says():
    cosine = Config.from_preset(
        "embedding", modalities=("t1",), schedule="cosine", warmup_epochs=3, epochs=7, learning_rate=1.0
    )
    assert [learning_rate_at(cosine.training, epoch) for epoch in range(4)] == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose([learning_rate_at(cosine.training, epoch) for epoch in (5, 7)], [0.5, 0], atol=1e-12)
    constant = Config.from_preset("albunet3d", warmup_epochs=1)
    assert [learning_rate_at(constant.training, epoch) for epoch in range(3)] == [5e-4, 1e-3, 1e-3]


def test_a_plateau_of_the_validation_is_counted_in_validations():
    given = {"validation_split": 0.25, "validation_frequency": 5, "plateau_monitor": "validation"}
    assert learning_rate_callback(tiny(**given, plateau_patience=12).training).patience == 3
    assert learning_rate_callback(tiny(plateau_patience=12).training).patience == 12


@pytest.mark.parametrize("parts", [1, 3])
def test_the_moving_average_moves_once_per_update(parts):
    inputs = keras.Input((1,))
    network = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    (weight,) = network.trainable_variables
    changes = {"weight_averaging": "ema", "gradient_accumulation_steps": parts, "batch_size": parts}
    optimiser = make_optimiser(tiny(**changes))
    optimiser.build(network.trainable_variables)
    with averaged_weights(optimiser):
        assert float(weight[0, 0]) == 0  # Before the first step there is no average.
    updated = []
    for _ in range(5):
        for _ in range(parts):
            optimiser.apply([keras.ops.ones((1, 1))])
        updated.append(float(weight[0, 0]))
    for _ in range(parts - 1):  # The average follows an update within the parts of the next batch.
        optimiser.apply([keras.ops.ones((1, 1))])
    last, mean = updated[-1], updated[0]
    for value in updated[1:]:
        mean = EMA_MOMENTUM * mean + (1 - EMA_MOMENTUM) * value
    with averaged_weights(optimiser):
        assert float(weight[0, 0]) == pytest.approx(mean, rel=1e-6)
    assert float(weight[0, 0]) == last


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_the_best_epoch_of_the_validation_is_kept_beside_the_last(phantoms, tmp_path):
    config = tiny(
        epochs=3, validation_split=0.25, validation_frequency=1, plateau_monitor="validation", plateau_patience=1
    )
    (run,) = train([config], phantoms, runs=tmp_path, cache_dir=tmp_path / "cache")
    scores = [float(row["dice"]) for row in csv.DictReader((run / "validation.csv").read_text().splitlines())]
    means = [np.mean(scores[start : start + 3]) for start in (0, 3, 6)]
    rates = [float(row["learning_rate"]) for row in csv.DictReader((run / "history.csv").read_text().splitlines())]
    best, expected = -1.0, [1e-3]
    for mean in means:
        expected.append(expected[-1] if mean > best else expected[-1] / 10)
        best = max(best, mean)
    np.testing.assert_allclose(rates, expected[:3], rtol=1e-5)
    _, network = load_network(run, "best")
    same = np.array_equal(network.get_weights()[0], load_network(run)[1].get_weights()[0])
    assert same == (int(np.argmax(means)) == 2)
    with pytest.raises(InputError, match="holds no best checkpoint: best.weights.h5 is missing"):
        load_network(
            train([tiny(epochs=1)], phantoms[:1], runs=tmp_path / "b", cache_dir=tmp_path / "cache")[0], "best"
        )


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_a_training_starts_from_a_trained_network_of_its_own_modality(phantoms, tmp_path):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none", "epochs": 1}
    configs = [Config.from_preset("embedding", modalities=(name,), **settings) for name in ("flair", "t2")]
    first = train(configs, phantoms[:1], runs=tmp_path / "first")
    still = {"start_from": str(tmp_path / "first"), "learning_rate": 1e-12}
    again = train([config.replace(**still) for config in configs], phantoms[:1], runs=tmp_path / "again")
    for before, after in zip(first, again, strict=True):
        pairs = [load_network(run)[1].get_weights() for run in (before, after)]
        for old, new in zip(*pairs, strict=True):
            np.testing.assert_allclose(new, old, atol=1e-9)
        origin = json.loads((after / "run.json").read_text())["initial_weights"]["origin"]
        assert origin == f"the weights of {before.name}, SHA-256 {sha256_of(before / 'network.weights.h5')[:12]}"
    (tmp_path / "damaged" / "embedding-flair" / "checkpoints" / "epoch-00000-step-000001").mkdir(parents=True)
    (run,) = train(
        [configs[0].replace(**still)], phantoms[:1], runs=tmp_path / "damaged"
    )  # It begins anew, from there.
    for old, new in zip(load_network(first[0])[1].get_weights(), load_network(run)[1].get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-9)
    other = Config.from_preset("embedding", modalities=("t1",), **settings | {"input_scaling": "none"})
    with pytest.raises(InputError, match="must be a run of the same network.*with other input_scaling"):
        train([other.replace(start_from=str(first[0]))], phantoms[:1], runs=tmp_path / "other")
    with pytest.raises(InputError, match="must be another run than the one to train"):
        train(
            [configs[0].replace(**still)], phantoms[:1], runs=tmp_path / "first", options=TrainingOptions(restart=True)
        )
    assert (first[0] / "network.weights.h5").is_file()
    damaged = tmp_path / "cut" / "embedding-flair"
    shutil.copytree(first[0], damaged)
    (damaged / "network.weights.h5").write_bytes(b"cut")
    options = TrainingOptions(restart=True, minutes=9)
    with pytest.raises(InputError, match=r"cut/embedding-flair/network.weights.h5 must hold the weights"):
        train([configs[0].replace(start_from=str(damaged))], phantoms[:1], runs=tmp_path / "again", options=options)
    assert not (tmp_path / "again" / "embedding-flair.1").exists()
    scored = [configs[0].replace(**still, validation_frequency=1)]
    given = {"runs": tmp_path / "scored", "validation": phantoms[1:2]}
    validated = train(scored, phantoms[:1], **given)
    shutil.rmtree(tmp_path / "first")  # A run that is finished, or goes on, needs it no more.
    assert train([configs[0].replace(**still)], phantoms[:1], runs=tmp_path / "again") == again[:1]
    assert train(scored, phantoms[:1], **given) == validated
    with pytest.raises(
        InputError, match="must be a trained run, or a folder that holds embedding-flair. Received: .*nowhere"
    ):
        train([configs[0].replace(start_from=str(tmp_path / "nowhere"))], phantoms[:1], runs=tmp_path / "other")


def test_a_signal_before_the_first_step_asks_to_be_tried_again(phantoms, phantom_folder, tmp_path, monkeypatch, capsys):
    def interrupted(*given, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(train_module, "prepare_training_data", interrupted)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(Preempted, match="Stopped by SIGTERM. Run the same command, without --restart, to resume"):
        train([tiny()], phantoms[:1], runs=tmp_path)
    assert not issubclass(Preempted, Exception)  # What a library's error is caught by lets it pass.
    tiny().save(tmp_path / "embedding-flair")
    for restart in (False, True):
        with pytest.raises(Preempted) if restart else pytest.raises(InputError, match="without run.json"):
            train([tiny()], phantoms[:1], runs=tmp_path, options=TrainingOptions(restart=restart))
        assert (tmp_path / "embedding-flair.1").exists() == restart
    monkeypatch.setattr(fill_cache, "prepare_cases", interrupted)
    assert main(["preprocess", str(phantom_folder), "--cache-dir", str(tmp_path / "cache")]) == 75
    assert "Stopped by SIGTERM. Run the same command" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers


def test_other_truth_of_the_cases_that_validate_makes_another_training(phantoms, tmp_path):
    shutil.copytree(phantoms[1].folder, tmp_path / phantoms[1].id)
    (case,) = find_cases(tmp_path)[0]
    expected = data_hash([], phantoms[1:2], ["flair"])
    assert data_hash([], [case], ["flair"]) == expected != data_hash([])
    shutil.copy(phantoms[2].volumes["t2"], case.volumes["t2"])
    assert data_hash([], [case], ["flair"]) == expected != data_hash([], [case], ["t2"])
    shutil.copy(phantoms[2].segmentation, case.segmentation)
    assert data_hash([], [case], ["flair"]) != expected


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    network, order, rename = build_network(tiny()), [], os.replace
    flushed = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("flush"), flushed(file))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("name"), rename(*names))[1])
    save_weights(network, tmp_path / "network.weights.h5")
    assert order == ["flush", "name", "flush"]  # The file, and then its folder.


@pytest.mark.usefixtures("small")
def test_what_has_begun_needs_no_initial_weights(phantoms, tmp_path, monkeypatch):
    """ImageNet's weights may be gone from a cache, or be on another machine, when a training goes on."""
    folders = {"runs": tmp_path, "cache_dir": tmp_path / "cache"}
    (straight,) = train([tiny(epochs=3)], phantoms, **folders, options=TrainingOptions(name="straight"))
    options = TrainingOptions(name="stopped")
    end = RunRecord.on_epoch_end

    def stopped(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        end(self, epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunRecord, "on_epoch_end", stopped)
        train([tiny(epochs=3)], phantoms, **folders, options=options)

    def lacking(config):
        raise InputError("The weights must be somewhere. Received: none of them.")

    monkeypatch.setattr(ready_network, "build_with_weights", lacking)
    (run,) = train([tiny(epochs=3)], phantoms, **folders, options=options)
    assert_same_run(run, straight)
    assert read_run_record(run)["initial_weights"] == read_run_record(straight)["initial_weights"]
    assert train([tiny(epochs=3)], phantoms, **folders, options=options) == [run]
    with pytest.raises(InputError, match="The weights must be somewhere"):
        train([tiny(epochs=3)], phantoms, **folders)
    (run / "checkpoints" / "epoch-00001-step-000000").mkdir(parents=True)  # Which cannot be used.
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"training"'))
    with pytest.raises(InputError, match="must hold a checkpoint to go on from"):
        train([tiny(epochs=3)], phantoms, **folders, options=options)


@pytest.mark.usefixtures("small")
def test_a_finished_run_is_not_written_to(phantoms, tmp_path, monkeypatch, capsys):
    folders = {"runs": tmp_path, "cache_dir": tmp_path / "cache"}
    (run,) = train([tiny(epochs=1)], phantoms, **folders)

    def read_only(*given, **settings):
        raise WriteError("The folder is read-only.")

    monkeypatch.setattr("brats_tf.training.train.lock", read_only)
    assert train([tiny(epochs=1)], phantoms, **folders) == [run]
    assert capsys.readouterr().out.count("is already trained with these settings and data.") == 1


def test_configs_that_share_a_folder_are_refused_at_once(phantoms, tmp_path):
    configs = [tiny(seed=seed) for seed in range(3)]
    with pytest.raises(InputError, match=r"a folder of its own.*Received: .*embedding-flair, .*embedding-flair twice"):
        train(configs, phantoms, runs=tmp_path)
    with pytest.raises(InputError, match="Received: no config"):
        train([], phantoms, runs=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_a_validation_case_that_is_left_out_is_not_in_the_split(phantoms, tmp_path):
    """So that `predict --cases validation` finds what `run.json` says."""
    cases = list(phantoms)
    config = tiny(epochs=1, validation_split=0.5, validation_frequency=1)
    split = split_cases(cases, config.data)
    bad = next(index for index, case in enumerate(cases) if case.id == split.validation[0])
    damaged = tmp_path / "damaged_seg.nii.gz"
    damaged.write_bytes(cases[bad].segmentation.read_bytes()[:200])
    cases[bad] = dataclasses.replace(cases[bad], segmentation=damaged)
    (run,) = train([config], cases, runs=tmp_path / "runs", options=TrainingOptions(skip_invalid=True))
    assert Split.load(run).validation == read_run_record(run)["validation"] == split.validation[1:]
