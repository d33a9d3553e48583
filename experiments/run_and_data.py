"""The arguments of experiments about one trained network and cases to predict."""

import argparse
from pathlib import Path


def run_and_data(description):
    """A parser with RUN, DATA and --results, to which an experiment adds options of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained network")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--results", type=Path, default=Path("results"))
    return parser
