"""The commands that look at data and preprocess it, and the demo; see `commands`."""

import logging
from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import cases_from, config_from, engine_given, folder, settings_given
from brats_tf.cli.commands import FAILED_CASES, Command
from brats_tf.config.config import SECTIONS, Config
from brats_tf.config.execution import EngineOptions, TrainingOptions
from brats_tf.config.fields import settings_of
from brats_tf.config.presets import DEFAULT_PRESET, phantom_settings
from brats_tf.config.settings import ClassifierSettings, DataSettings
from brats_tf.errors import InputError, WriteError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.program import stop_on_signals

log = logging.getLogger(__name__)


def demo(given):
    """Run everything on synthetic cases, in minutes on a CPU.

    Trains the four networks, predicts cases that they have not seen, prints the paper's table and writes
    RESULTS/overlay.png and RESULTS/report.html. Falls back to random weights, and says so, where ImageNet's cannot be
    found.

    brats-tf demo
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.cli.demo import run_demo

    folders = {name: getattr(given, name) for name in options.FOLDERS}
    run_demo(**folders, restart=bool(given.restart), **settings_given(given))


def inspect(given):
    """List the cases of a data folder, and their defects.

    Shows layout, labels, geometry, missing modalities, and what was skipped or rejected and why. Reads every header and
    every label map, not the voxels of the modalities. Recognises BraTS 2017-2024 and MSD Task01 by their names;
    anything else can be listed in a .csv or .json with the columns id, flair, t1, t1ce, t2, seg, convention (brats2017,
    brats2023, brats2024, brats2024-ped or msd) and, if known, grade (HGG, LGG) and patient.

    brats-tf inspect BraTS2020
    """
    from brats_tf.data.inspection import inspect_dataset

    return FAILED_CASES if inspect_dataset(given.data, as_json=given.json) else 0


def preprocess(given):
    """Preprocess all cases, which training does too.

    Reads, orients, crops and normalises every case once, into files that training streams. Prints an estimate, resumes
    where a killed one stopped, and repeats what changed. With --verify it checks the cache instead, and removes what is
    damaged.

    brats-tf preprocess BraTS2020 --cache-dir /fast/disk/cache
    """
    from brats_tf.data.layouts import SEGMENTATION
    from brats_tf.preprocessing.cache import CacheSettings
    from brats_tf.preprocessing.fill_cache import prepare_cases, verify_cache
    from brats_tf.runtime.ray_pool import ray_executor

    cache_dir = given.cache_dir or folder(given, "runs") / "cache"
    if given.verify:
        return FAILED_CASES if verify_cache(cache_dir) else 0
    names = MODALITIES if given.modality == "all" else (given.modality,)
    config = config_from(given, names)
    settings = CacheSettings(config.data.crop, config.data.spacing_mm)
    engine = engine_given(given)
    cases, complaints, count = cases_from(given, "training", config), [], 0
    with ray_executor(engine.engine, engine.address, given.workers) as executor, stop_on_signals():
        execution = {"workers": executor or given.workers, "skip_invalid": bool(given.skip_invalid)}
        for with_truth, parts in ((True, (*names, SEGMENTATION)), (False, names)):
            chosen = [case for case in cases if bool(case.segmentation) == with_truth]
            try:
                count += len(prepare_cases(chosen, parts=parts, settings=settings, folder=cache_dir, **execution))
            except WriteError:
                raise
            except InputError as error:
                complaints.append(str(error))
    if complaints and not (given.skip_invalid and count):
        raise InputError("\n".join(complaints))
    for complaint in complaints:
        log.info(f"Left out: {complaint}")
    return 0


def _demo_options(parser):
    for name, default in options.FOLDERS.items():
        parser.add_argument(
            f"--{name}",
            type=options.parse_path,
            metavar="DIR",
            default=Path("demo") / default,
            help=f"default: demo/{default}",
        )
    defaults = phantom_settings(DEFAULT_PRESET)
    options.add_settings(parser, DataSettings, ("crop",), defaults=defaults)
    options.add_settings(parser, ClassifierSettings, ("weights",))
    options.add_settings(parser, SECTIONS["training"], ("epochs", "learning_rate"), defaults=defaults)
    options.add_setting(parser, settings_of(Config)["seed"])
    options.add_settings(parser, TrainingOptions, ("restart",))


def _inspect_options(parser):
    parser.add_argument("data", type=options.parse_path, metavar="DATA", help="a folder, or a .csv or .json list")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _preprocess_options(parser):
    options.add_data(parser)
    options.add_folder(parser, "runs", "folder of the trained networks")
    options.add_cache(parser)
    options.add_preset(parser)
    options.add_modality(parser, "what to preprocess (default: all)", default="all")
    options.add_settings(parser, DataSettings, ("crop", "spacing_mm"))
    options.add_settings(parser, TrainingOptions, ("workers", "skip_invalid"))
    options.add_settings(parser, EngineOptions)
    parser.add_argument("--verify", action="store_true", help="check the cache instead of filling it")


COMMANDS = (
    Command("demo", demo, _demo_options),
    Command("inspect", inspect, _inspect_options),
    Command("preprocess", preprocess, _preprocess_options),
)
