"""Writes the reference pages that are made from the code: command line, settings, backbones, published results."""

import inspect
import json
import os
from pathlib import Path

from brats_tf.cli.backbones_table import BACKBONES_FILE
from brats_tf.cli.main import parser
from brats_tf.cli.options import default_text
from brats_tf.config import execution
from brats_tf.config.config import NETWORKS, SECTIONS, Config
from brats_tf.config.fields import Names, allowed_values, settings_of
from brats_tf.config.presets import PRESETS, SUMMARIES, modalities_of

EXECUTION = (
    "TrainingOptions",
    "EngineOptions",
    "PredictionEngine",
    "ForwardOptions",
    "PostProcessing",
    "PredictionOptions",
    "EvaluationOptions",
    "ReportOptions",
    "ConformOptions",
    "ExportOptions",
    "ServeOptions",
    "RestoreOptions",
)


def write_reference(folder):
    """Writes all pages into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"command-line": command_line(), "settings": settings(), "presets": presets(), "backbones": backbones()}
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def command_line():
    """The help of every command, as the program prints it."""
    os.environ["COLUMNS"] = "100"
    top = parser()
    lines = [
        "# Command line",
        "",
        "What `brats-tf COMMAND --help` prints.",
        "",
        "```text",
        top.format_help().strip(),
        "```",
    ]
    for name, command in top._subparsers._group_actions[0].choices.items():
        lines += ["", f"## brats-tf {name}", "", "```text", command.format_help().strip(), "```"]
    return [*lines, "", _exit_codes()]


def settings():
    """A table for each section of `Config`, and for the settings of single commands."""
    lines = [
        "# Settings",
        "",
        "Every setting is declared once, in `brats_tf/config/settings.py` and `brats_tf/config/execution.py`. "
        "The option is the name with hyphens: `window_stride` is `--window-stride`. In a `config.json`, which every "
        "run leaves behind and `brats-tf train --config` takes, settings are grouped by section.",
    ]
    sections = {"data": SECTIONS["data"]}
    for kind in dict.fromkeys(NETWORKS.values()):
        sections[f"network ({', '.join(name for name, one in NETWORKS.items() if one is kind)})"] = kind
    sections |= {name: kind for name, kind in SECTIONS.items() if name != "data"}
    for title, kind in sections.items():
        lines += ["", f"## {title}", "", inspect.cleandoc(kind.__doc__), "", *_table(kind)]
    lines += ["", "## seed", "", *_table(Config)]
    lines += ["", "## Settings of single commands", "", "These are not part of a run's `config.json`."]
    for name in EXECUTION:
        kind = getattr(execution, name)
        lines += ["", f"### {name}", "", inspect.cleandoc(kind.__doc__), "", *_table(kind)]
    return lines


def presets():
    """The values of each preset that differ from the defaults."""
    lines = ["# Presets", "", "What each preset changes; all other settings keep their defaults."]
    for name, values in PRESETS.items():
        networks = "; ".join(" + ".join(stacked) for stacked in modalities_of(name))
        lines += ["", f"## {name}", "", f"{SUMMARIES[name][0].upper()}{SUMMARIES[name][1:]}. Networks: {networks}.", ""]
        rows = [f"| `{setting}` | {_cell(value)} |" for setting, value in values.items() if setting != "modalities"]
        lines += ["| setting | value |", "|---|---|", *rows] if rows else ["The defaults."]
    return lines


def backbones():
    """The classifiers that can be embedded, with what a pass costs."""
    measured = json.loads(BACKBONES_FILE.read_text())
    size = "x".join(map(str, measured["crop"]))
    lines = [
        "# Backbones",
        "",
        f"Measured on {measured['machine']}, in one run; a pass of the whole network at {size}, float32, one modality. "
        "`Pn` is the number of channels at 1/2ⁿ of the image; a dash means that the family has no such output.",
        "",
        "| backbone | source | weights | P1 | P2 | P3 | P4 | P5 | M parameters | GFLOP | seconds | GB |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in measured["backbones"].items():
        channels = " | ".join(str(row["channels"].get(f"P{level}", "–")) for level in range(1, 6))
        cost = f"{row['parameters'] / 1e6:.1f} | {row['gflop']:.0f} | {row['seconds']:.1f} | {row['peak_gb']:.1f}"
        lines.append(f"| `{name}` | {row['source']} | {', '.join(row['weights'])} | {channels} | {cost} |")
    lines.append("")
    for note in dict.fromkeys(row["note"] for row in measured["backbones"].values() if row["note"]):
        names = ", ".join(f"`{name}`" for name, row in measured["backbones"].items() if row["note"] == note)
        lines.append(f"- {names}: {note}.")
    return [*lines, *(f"- Not offered: {names}: {reason}." for names, reason in measured["unfit"].items())]


def _table(kind):
    lines = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, one in settings_of(kind).items():
        values = ", ".join(f"`{choice}`" for choice in one.choices) or allowed_values(one)
        values += f" ({one.unit})" if one.unit and one.kind != Names else ""
        source = f" *({one.source})*" if one.source else ""
        default = "required" if name == "modalities" else default_text(one)
        lines.append(f"| `{name}` | {values} | {default} | {one.help[0].upper()}{one.help[1:]}.{source} |")
    return lines


def _cell(value):
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _exit_codes():
    return (
        "## Exit codes\n\n| code | meaning |\n|--:|---|\n| 0 | success |\n"
        "| 2 | bad input, or some cases failed; the message names case and file |\n"
        "| 75 | stopped by SIGTERM or SIGUSR1, and everything is saved: run the same command again |\n"
        "| 130 | interrupted by Ctrl-C |"
    )
