"""The commands of `brats-tf`: each imports its run inside, so that `--help` never loads TensorFlow.

A command's docstring is its help text. It takes the parsed arguments and returns an exit code, or None for 0.
"""

import sys

from brats_tf.cli.arguments import (
    cases_of,
    config_of,
    given_settings,
    networks_given,
    one_config,
    phantom_settings,
    scored_cases,
    steps_given,
    validation_cases,
    wanted_networks,
    windows_config,
)
from brats_tf.config.settings import Config
from brats_tf.errors import InputError, WriteError
from brats_tf.regions import MODALITIES

FAILED_CASES = 2


def train(given):
    """Train one network, or with `--modality all` four of them; go on where one was stopped.

    Paper A: presets paper, authors, plus; paper B: albunet3d, albunet2d and more. A run lies in RUNS/<modality>:
    config.json, split.json, network.weights.h5, history.csv, run.json, a log for TensorBoard and its picture
    training.png. With --validation 0.2, or --fold 0/5, some patients are kept from training, the same for every
    modality (`predict --held-out`), and their Dice is taken every fifth epoch (validation.csv, best.weights.h5).
    The same command goes on where a training was killed, and exit code 75 says that one was told to stop (SIGTERM,
    SIGUSR1) and saved. With --modality all and several GPUs the networks train side by side.
    Without --data, made-up cases are used, at a small crop.

    brats-tf train --data BraTS2020 --modality flair
    """
    from brats_tf.runtime.console import import_tensorflow

    import_tensorflow()
    from brats_tf.training import train as training
    from brats_tf.training.distribution import gpu_numbers, machines
    from brats_tf.training.parallel import train_modalities

    configs = [config_of(given, modalities=modalities) for modalities in wanted_networks(given)]
    gpus = gpu_numbers()
    if given.modality == "all" and given.data and len(gpus) > 1 and given.devices == 1 and machines() == 1:
        return train_modalities(sys.argv[1:], gpus, logs=given.runs)
    cases = cases_of(given, "training", configs[0])
    store = given.store or given.runs / "store"
    training.train(
        configs,
        cases,
        runs=given.runs,
        store=store,
        validation=validation_cases(given),
        skip_bad=given.skip_bad,
        workers=given.workers,
        devices=given.devices,
        restart=given.restart,
        checkpoint_minutes=given.checkpoint_minutes,
    )


def predict(given):
    """Predict label maps with the average of the trained networks.

    Writes OUT/<case>.nii.gz with each case's own geometry and label convention. A case that lacks a modality is
    predicted from the others. Without --data, phantoms that training has not seen are used. OUT/prediction.json tells
    the networks, the steps after them (none unless asked for), seconds and, for several networks, their disagreement.

    brats-tf predict --data BraTS2020_validation --runs runs --out predictions
    """
    from brats_tf.runtime.console import import_tensorflow

    import_tensorflow()
    from brats_tf.inference.predict import load_ensemble, predict_cases

    runs = [given.runs / name for name in networks_given(given)]
    steps = steps_given(given, runs)
    members = load_ensemble(runs, given.epoch)
    cases = scored_cases(given, members[0].config)
    failures = predict_cases(
        members,
        cases,
        out=given.out,
        steps=steps,
        save_probabilities=given.save_probabilities,
        save_uncertainty=given.save_uncertainty,
    )
    return FAILED_CASES if failures else 0


def summary(given):
    """Print the network: every layer with its shape, and what a pass costs.

    Paper A's Table 1 reads off the layers stem_conv, squeeze1 ... squeeze4, planes_conv and planes.

    brats-tf summary --preset paper --modality flair
    """
    from brats_tf.runtime.console import import_tensorflow, say

    import_tensorflow()
    from brats_tf.models.cost import multiply_adds
    from brats_tf.runs.folder import build_network

    config = one_config(given)
    network = build_network(config)
    network.summary(line_length=130)
    say(f"One pass over one volume: {2 * multiply_adds(network) / 1e9:.0f} GFLOP in convolutions.")


def export(given):
    """Write one trained network as a SavedModel, reload it and compare.

    Its `serve` takes (B, H, W, D, C) float32, cropped and z-scored, and needs TensorFlow alone.

    brats-tf export --run runs/flair --out exported/flair
    """
    from brats_tf.runtime.console import import_tensorflow

    import_tensorflow()
    from brats_tf.inference.export import export_saved_model

    export_saved_model(given.run, epoch=given.epoch, out=given.out)


def runs(given):
    """List the runs of a folder and compare them: how far, how long, how good, and the settings in which they differ.

    brats-tf runs --runs runs
    """
    from brats_tf.runs.table import show_runs

    show_runs(given.runs, as_json=given.json)


def cases(given):
    """List the cases of a data folder: layout, labels, geometry, what is missing, what was skipped or refused and why.

    Reads every header and every label map, not the voxels of the modalities. Knows BraTS 2017-2024 and MSD Task01 by
    their names; anything else can be listed in a .csv or .json with the columns id, flair, t1, t1ce, t2, seg,
    convention (brats2017, brats2023, brats2024, brats2024-ped or msd) and, if known, grade (HGG, LGG) and patient.

    brats-tf cases --data BraTS2020
    """
    from brats_tf.data.inspection import take_census

    return FAILED_CASES if take_census(given.data, as_json=given.json) else 0


def prepare(given):
    """Read, orient, crop and normalise every case once, into files that training streams; training does it by itself.

    Says what it will take, goes on where a killed one stopped, and prepares again what changed. With --verify it reads
    the store instead, and removes what is damaged.

    brats-tf prepare --data BraTS2020 --store /fast/disk/store
    """
    from brats_tf.data.layouts import SEGMENTATION
    from brats_tf.preprocessing.cache import Settings
    from brats_tf.preprocessing.fill_cache import prepare_cases, verify_store

    store = given.store or given.runs / "store"
    if given.verify:
        return FAILED_CASES if verify_store(store) else 0
    names = MODALITIES if given.modality == "all" else (given.modality,)
    crop = given.crop or (None if given.data else phantom_settings(given.preset)["crop"])
    config = Config.from_preset(given.preset, modalities=names, crop=crop, spacing_mm=given.spacing_mm)
    settings = Settings(config.crop, config.spacing_mm)
    options = {"settings": settings, "folder": store, "workers": given.workers, "skip_bad": given.skip_bad}
    found, complaints = cases_of(given, "training", config), []
    for with_truth, parts in ((True, (*names, SEGMENTATION)), (False, names)):
        try:
            prepare_cases([case for case in found if bool(case.segmentation) == with_truth], parts=parts, **options)
        except WriteError:
            raise
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError("\n".join(complaints))


def demo(given):
    """See the whole job on made-up cases, in minutes on a CPU: nothing to prepare.

    Trains the four networks, predicts cases that they have not seen, prints the paper's table and writes
    RESULTS/overlay.png. Where ImageNet weights cannot be had it goes on with random ones, and says so first.
    """
    from brats_tf.runtime.console import import_tensorflow

    import_tensorflow()
    from brats_tf.cli import demo as whole

    whole.demo(runs=given.runs, out=given.out, results=given.results, **given_settings(given))


def bench(given):
    """Measure this machine: the network, sliding windows, data, and training in each precision.

    Data: preparing the cases of DATA with one worker and two, streaming them, memory over 1,000 steps, and each
    augmentation beside batchgenerators and MONAI where they are installed. Windows: preset albunet3d beside its twin in
    PyTorch. Training: step, memory and loss with and without --remat. Writes RESULTS/bench.json, bench_windows.json,
    bench_data.json, bench_training.json.

    brats-tf bench --data BraTS2020 --only data
    """
    from bench.data import bench_data
    from bench.network import bench as measure
    from bench.training import bench_training
    from bench.windows import bench_windows

    config = one_config(given)
    if given.only in (None, "network"):
        measure(config, results=given.results)
    found = [] if given.only == "network" else cases_of(given, "bench", config)
    if given.only in (None, "windows"):
        bench_windows(windows_config(given, config), found[0], results=given.results)
    if given.only in (None, "training"):
        bench_training(config, next(case for case in found if case.segmentation), results=given.results)
    if given.only in (None, "data"):
        whole = [case for case in found if case.segmentation and len(case.volumes) == len(MODALITIES)]
        bench_data(whole, results=given.results, crop=config.crop)


def backbones(given):
    """List the 2D classifiers that `--backbone` takes: source, weights, channels per scale, parameters, cost.

    Parameters are the classifier's; GFLOP and seconds are of a pass of the whole network (preset paper), measured on
    the machine that the table names. With --measure they are measured here, one after another (half an hour for all,
    or one --backbone), and written to RESULTS/backbones.json.

    brats-tf backbones --backbone convnext_tiny
    """
    from brats_tf.cli.backbones_table import BACKBONES_FILE, show_backbones

    path = BACKBONES_FILE
    if given.measure:
        from bench.network import bench_backbones

        bench_backbones((given.backbone,) if given.backbone else None, results=given.results)
        path = given.results / "backbones.json"
    show_backbones(given.backbone, path=path)
