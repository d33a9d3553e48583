"""The command that writes networks for other programs; see `commands`."""

from brats_tf.cli import options
from brats_tf.cli.arguments import postprocessing_given, section_given
from brats_tf.cli.commands import Command, add_checkpoint
from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing


def export(given):
    """Export trained networks for other programs and verify the result.

    A SavedModel needs TensorFlow alone. Its `label_map` takes raw intensities of a whole volume (H, W, D, C) and
    returns its labels, as predict finds them: crop, z-score, average of the networks and steps are inside.
    `probabilities`, which ONNX and LiteRT files have alone, takes volumes (B, H, W, D, C), cropped and z-scored.
    OUT/model_card.md describes what is in it, OUT/metadata.json for programs.

    brats-tf export runs/embedding-flair --out exported/flair
    brats-tf export runs/embedding-flair runs/embedding-t1ce --tuned --results predictions/results --out exported/two
    brats-tf export runs/embedding-flair --format onnx --out exported/flair-onnx
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.exporting.export import export_networks

    export_networks(
        given.run,
        out=given.out,
        checkpoint=given.checkpoint,
        forward=section_given(given, ForwardOptions),
        steps=postprocessing_given(given, given.run),
        options=section_given(given, ExportOptions),
    )


def _export_options(parser):
    parser.add_argument(
        "run", nargs="+", type=options.parse_path, metavar="RUN", help="folder of a trained network; several: average"
    )
    parser.add_argument("--out", type=options.parse_path, metavar="DIR", required=True, help="for the export")
    add_checkpoint(parser)
    options.add_settings(parser, ForwardOptions)
    options.add_settings(parser, PostProcessing)
    options.add_tuned(parser)
    options.add_settings(parser, ExportOptions)


COMMANDS = (Command("export", export, _export_options),)
