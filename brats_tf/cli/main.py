"""The command line: `brats-tf <command>`. It parses the arguments; the modules of the commands do the rest."""

import argparse
import os
import textwrap
from functools import partial

from brats_tf import __version__
from brats_tf.cli import (
    clinical_commands,
    data_commands,
    evaluate_commands,
    export_commands,
    predict_commands,
    serve_commands,
    train_commands,
)
from brats_tf.cli.commands import Command
from brats_tf.runtime.console import printable
from brats_tf.runtime.program import BAD_INPUT, run_program

DESCRIPTION = "Embed a 2D ImageNet classifier in a 3D brain-tumour segmenter: train, predict, evaluate, export."
TRACEBACK_VARIABLE = "BRATS_TF_TRACEBACK"
COMMANDS: dict[str, Command] = {
    command.name: command
    for module in (
        data_commands,
        train_commands,
        predict_commands,
        evaluate_commands,
        clinical_commands,
        export_commands,
        serve_commands,
    )
    for command in module.COMMANDS
}


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one sentence."""

    def error(self, message):
        """Exits with code 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {printable(message)}. See {self.prog} --help.\n")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, 2 after bad input, 75 when stopped and saved, 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    given.arguments = arguments
    traceback = given.traceback or bool(os.environ.get(TRACEBACK_VARIABLE))
    return run_program("brats-tf", partial(COMMANDS[given.command].run, given), traceback=traceback)


def parser() -> Parser:
    """The argument parser with all commands."""
    top = Parser(
        prog="brats-tf",
        description=DESCRIPTION,
        epilog="brats-tf COMMAND --help shows the options of a command.",
    )
    top.add_argument("--version", action="version", version=f"brats-tf {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS.values():
        text = (command.run.__doc__ or "").strip()
        subparser = subparsers.add_parser(
            command.name,
            help=text.splitlines()[0].rstrip("."),
            description=textwrap.dedent(f"    {text}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_options(subparser)
        shown = {"None": "{}", "+": "{} ..."}
        names = [shown.get(str(one.nargs), "[{}]").format(one.metavar) for one in subparser._get_positional_actions()]
        subparser.usage = " ".join([f"brats-tf {command.name}", *names, "[options]"])
        subparser.add_argument(
            "--traceback", action="store_true", help=f"show the traceback of an error (or set {TRACEBACK_VARIABLE}=1)"
        )
    return top
