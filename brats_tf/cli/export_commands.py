"""The command that writes networks for other programs; see `commands`."""

from brats_tf.cli import options
from brats_tf.cli.arguments import postprocessing_given, section_given
from brats_tf.cli.commands import Command, add_checkpoint
from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing


def export(given):
    """Export trained networks as a SavedModel and verify it.

    It needs TensorFlow alone. `label_map` takes raw intensities of a whole volume (H, W, D, C) and returns its labels,
    as predict finds them: crop, z-score, average of the networks and steps are inside. `probabilities` takes volumes
    (B, H, W, D, C), cropped and z-scored. OUT/model_card.md describes what is in it, OUT/metadata.json for programs.

    brats-tf export runs/embedding-flair --out exported/flair
    brats-tf export runs/embedding-flair runs/embedding-t1ce --tuned --results predictions/results --out exported/two
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.exporting.saved_model import export_saved_model

    export_saved_model(
        given.run,
        out=given.out,
        checkpoint=given.checkpoint,
        forward=section_given(given, ForwardOptions),
        steps=postprocessing_given(given, given.run),
        options=section_given(given, ExportOptions),
        results=given.results,
    )


def _export_options(parser):
    parser.add_argument(
        "run", nargs="+", type=options.parse_path, metavar="RUN", help="folder of a trained network; several: average"
    )
    parser.add_argument("--out", type=options.parse_path, metavar="DIR", required=True, help="for the SavedModel")
    add_checkpoint(parser)
    options.add_settings(parser, ForwardOptions)
    options.add_settings(parser, PostProcessing)
    options.add_tuned(parser)
    options.add_settings(parser, ExportOptions)
    parser.add_argument(
        "--results", type=options.parse_path, metavar="DIR", help="what evaluate wrote, for the scores on the card"
    )


COMMANDS = (Command("export", export, _export_options),)
