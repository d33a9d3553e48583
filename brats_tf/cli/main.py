"""The front door: `brats-tf <command>`. It only reads the arguments; `commands` does the rest."""

import argparse
import textwrap
from functools import partial

from brats_tf import __version__
from brats_tf.cli import evaluate_commands as scoring
from brats_tf.cli import train_commands as commands
from brats_tf.cli.options import OPTIONS, POSITIONAL
from brats_tf.runtime.program import BAD_INPUT, run_program

FRONT = "Embed a 2D ImageNet classifier in a 3D brain-tumour segmenter (BraTS): train, predict, evaluate, export."


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message):
        self.exit(BAD_INPUT, f"{self.prog}: {message}. See {self.prog} --help.\n")


def main(arguments=None):
    """Runs one command. Returns the exit code: 0, 2 after bad input, 75 when stopped and saved, 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    return run_program("brats-tf", partial(given.command, given))


def parser():
    """The argument parser with all commands."""
    top = Parser(prog="brats-tf", description=FRONT)
    top.add_argument("--version", action="version", version=f"brats-tf {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    for function, options in COMMANDS.items():
        text = function.__doc__.strip()
        command = subparsers.add_parser(
            function.__name__,
            help=text.splitlines()[0],
            description=textwrap.dedent(f"    {text}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for option in options.split():
            _add(command, option)
        command.set_defaults(command=function)
    return top


def _add(command, option):
    name = option.rstrip("!")
    settings = dict(OPTIONS.get(f"{command.prog.split()[-1]} {name}", OPTIONS[name]))
    if "default" in settings and settings["default"] is not None:
        settings["help"] += f" (default: {settings['default']})"
    if name in POSITIONAL:
        command.add_argument(name, **settings)
    else:
        command.add_argument(f"--{name}", required=option.endswith("!"), **settings)


NETWORK = "preset modality crop patch backbone depth-factors planes input-scaling batch-norm"
PATCHES = "step window-weights foreground batch-size batches accumulation"
STEPS = "remove-below-ml fill-holes drop-et-below-ml"
RATE = "learning-rate schedule warm-up plateau-on average"
COMPUTING = "precision remat jit"
LEARNING = f"{PATCHES} augmentation spacing-mm epochs {RATE} {COMPUTING} seed fold validation validate-every"
GOING_ON = "devices restart checkpoint-minutes skip-bad"
COMMANDS = {
    commands.demo: "runs out results weights epochs crop seed",
    commands.prepare: "data runs store preset modality crop spacing-mm workers skip-bad verify",
    commands.train: f"data runs store workers {NETWORK} weights {LEARNING} {GOING_ON}",
    commands.predict: f"data runs preset networks held-out epoch out {STEPS} save-probabilities save-uncertainty",
    scoring.tune: "data runs preset networks held-out out",
    scoring.evaluate: "data runs preset networks held-out out results empty workers",
    scoring.report: "data runs preset networks held-out out results slices",
    scoring.figures: "run! data runs case held-out",
    scoring.compare: "first second results",
    scoring.submit: "data out archive",
    commands.runs: "runs json",
    commands.summary: NETWORK,
    commands.export: "run! epoch out!",
    commands.cases: "data! json",
    commands.bench: f"only data runs results {NETWORK}",
    commands.backbones: "backbone measure results",
}
