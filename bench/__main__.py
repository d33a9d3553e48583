"""Measures this machine: `python -m bench STAGE [DATA]`.

network: a pass, a training step and the machine's own matrix product. comparison: these, also with Keras's
normalisation and plain convolutions, and from files to a label map, beside MONAI's and nnU-Net's networks; in
float32, and in bfloat16 where the processor has it. growth: time and memory over 1, 10 and 100 cases. windows: preset
albunet3d beside its twin in PyTorch and MONAI's sliding window. training: step, memory and loss in each precision,
with and without rematerialisation. data: preprocessing with one worker and two, streaming, memory over 1,000 steps,
and each augmentation beside batchgenerators and MONAI. backbones: the table of `brats-tf backbones`. all: the first
six.

Other libraries are optional: pip install -e .[bench]. Writes RESULTS/bench*.json and RESULTS/backbones.json.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import cases_from, displayed_config, settings_given
from brats_tf.config.config import Config
from brats_tf.config.settings import DataSettings, EmbeddingSettings
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.program import run_program

UNUSED = {"growth": ("crop", "patch_size"), "data": ("backbone", "planes", "depth_factors", "patch_size")}
STAGES = ("network", "comparison", "growth", "windows", "training", "data", "backbones", "all")


def main(arguments=None):
    """Reads the arguments and measures. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES, help="what to measure")
    options.add_data(parser)
    parser.add_argument("--results", type=Path, metavar="DIR", default=Path("results"), help="default: results")
    options.add_preset(parser)
    options.add_modality(parser, "what the network sees (default: flair)")
    options.add_settings(parser, DataSettings, ("crop", "patch_size"))
    options.add_settings(parser, EmbeddingSettings, ("backbone", "planes", "depth_factors"))
    given = parser.parse_args(arguments)
    given.config = None
    return run_program("bench", partial(run, given))


def run(given):
    """Measures the stages that the arguments name."""
    from bench.comparison import bench_comparison
    from bench.data import bench_data
    from bench.growth import bench_growth
    from bench.network import bench_backbones, bench_network
    from bench.training import bench_training
    from bench.windows import bench_windows

    if ignored := [name for name in UNUSED.get(given.stage, ()) if settings_given(given).get(name)]:
        raise InputError(f"Stage {given.stage} measures without it. Received: {', '.join(ignored)}.")
    given.results.mkdir(parents=True, exist_ok=True)
    if given.stage == "backbones":
        other = {"data": given.data, "phantoms": given.phantoms, "preset": given.preset, "modality": given.modality}
        other |= {name: value for name, value in settings_given(given).items() if name != "backbone"}
        if ignored := [name for name, value in other.items() if value]:
            raise InputError(
                f"Stage backbones takes --backbone and --results alone. Received also: {', '.join(ignored)}."
            )
        bench_backbones((given.backbone,) if given.backbone else None, results=given.results)
        return
    config, stages = displayed_config(given), STAGES[:6] if given.stage == "all" else (given.stage,)
    if {"comparison", "growth"} & set(stages):
        _check_ensemble(config)
    cases = [] if stages == ("network",) else cases_from(given, "bench", config)
    with_truth = [case for case in cases if case.segmentation]
    if {"training", "data", "growth"} & set(stages) and not with_truth:
        raise InputError("The measurement needs cases with truth. Received: none.")
    if {"network", "training"} & set(stages) and config.data.patch_size:
        raise InputError(f"The measurement is that of a network of whole crops. Received: preset {config.preset}.")
    for stage in stages:
        if stage == "network":
            bench_network(config, results=given.results)
        elif stage == "comparison":
            bench_comparison(config, _complete(cases)[0], results=given.results)
        elif stage == "growth":
            bench_growth(config, _complete(with_truth), results=given.results)
        elif stage == "windows":
            bench_windows(_windows_config(given, config), cases[0], results=given.results)
        elif stage == "training":
            bench_training(config, with_truth[0], results=given.results)
        else:
            bench_data(_complete(with_truth), results=given.results, crop=config.data.crop)


def _complete(cases):
    """Those with all modalities; one at least."""
    found = [case for case in cases if len(case.volumes) == len(MODALITIES)]
    if not found:
        raise InputError("The measurement needs cases with all four modalities. Received: none.")
    return found


def _check_ensemble(config):
    """Raises `InputError` unless there can be a network of this config for each modality."""
    if config.data.patch_size or len(config.data.modalities) > 1:
        raise InputError(
            "The measurement is that of four one-modality networks of whole crops, for example --preset embedding. "
            f"Received: preset {config.preset}."
        )


def _windows_config(given, config):
    """The config to measure in windows: that of the arguments, or without any of them preset albunet3d."""
    if config.data.patch_size:
        return config
    if given.stage == "windows" and (settings_given(given) or given.modality or given.preset):
        raise InputError("Sliding windows need a patch-based network, for example --preset albunet3d.")
    return Config.from_preset("albunet3d")


if __name__ == "__main__":
    sys.exit(main())
