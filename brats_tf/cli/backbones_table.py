"""The table of backbones."""

import json
from pathlib import Path

from rich import box
from rich.table import Table

from brats_tf.errors import InputError, format_shape
from brats_tf.runtime.console import console

BACKBONES_FILE = Path(__file__).parents[1] / "models" / "backbones.json"  # Written by `python -m bench backbones`.


def show_backbones(name=None, *, path=BACKBONES_FILE):
    """Prints the table of backbones, or one of its rows, from a file that `bench.network.bench_backbones` wrote.

    Raises:
        InputError: on an unknown name.
    """
    measured = json.loads(Path(path).read_text())
    rows = measured["backbones"]
    if name and name not in rows:
        raise InputError(f"`backbone` must be one of {', '.join(rows)}. Received: {name!r}.")
    displayed = {name: rows[name]} if name else rows
    size = format_shape(measured["crop"])
    console.print("Channels of P1 ... P5, millions of parameters; GFLOP and seconds of a pass of the whole network")
    console.print(f"at {size}, measured on {measured['machine']}.")
    for source in dict.fromkeys(row["source"] for row in displayed.values()):
        rows_of_source = {backbone: row for backbone, row in displayed.items() if row["source"] == source}
        console.print(_backbone_table(source, rows_of_source))
    for note in dict.fromkeys(row["note"] for row in displayed.values() if row["note"]):
        console.print(f"{', '.join(backbone for backbone, row in displayed.items() if row['note'] == note)}: {note}.")
    if not name:
        for names, reason in measured["unfit"].items():
            console.print(f"Not offered: {names}: {reason}.")


def _backbone_table(source, rows):
    table = Table(title=f"from {source}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for column in ("backbone", "weights", "P1 ... P5"):
        table.add_column(column, no_wrap=column != "weights")
    for column in ("M par.", "GFLOP", "s"):
        table.add_column(column, justify="right", no_wrap=True)
    for backbone, row in rows.items():
        channels = " ".join(str(row["channels"].get(f"P{level}", "-")) for level in range(1, 6))
        cost = (f"{row['parameters'] / 1e6:.1f}", f"{row['gflop']:.0f}", f"{row['seconds']:.1f}")
        table.add_row(backbone, " ".join(row["weights"]), channels, *cost)
    return table
