"""Write the tables of the README pages anew from experiments/results/*.json, or check them.

Command:  python experiments/tables.py           (writes)
          python experiments/tables.py --check   (exit code 1 when a page does not say what the files say)
"""

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGES = (FOLDER.parent / "README.md", FOLDER / "README.md")
REGIONS = ("ET", "WT", "TC")


def read(name):
    """The content of one results file."""
    path = FOLDER / "results" / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; README.md beside it says which command writes it.")
    return json.loads(path.read_text())


def results():
    """Paper A's rows and ours: mean, standard deviation and median Dice x 100."""
    lines = ["| Dice × 100 (mean ± std, median) | cases | ET | WT | TC |", "|---|--:|--:|--:|--:|"]
    rows = [(row["title"], row) for row in read("paper_a")]
    rows += [
        ("ours: phantoms at 64x64x36, `make demo`, before training", read("demo_untrained")),
        ("ours: phantoms at 64x64x36, `make demo`", read("demo")),
    ]
    for title, summary in rows:
        scores = [summary[region]["dice"] for region in REGIONS]
        cells = [f"{100 * s['mean']:.2f} ± {100 * s['std']:.2f}, {100 * s['median']:.2f}" for s in scores]
        lines.append(f"| {title} | {scores[0]['n']} | {' | '.join(cells)} |")
    return lines


def overfit():
    """The case learned by heart."""
    run = read("overfit_one_case")
    dice = " | ".join(f"{run['dice'][region]:.3f}" for region in REGIONS)
    return [
        "| case | device | steps | seconds | ET | WT | TC |",
        "|---|---|--:|--:|--:|--:|--:|",
        f"| {run['case']} | {run['device']} | {run['steps']} | {run['seconds']:.0f} | {dice} |",
    ]


def bench():
    """What a pass and a step cost."""
    run = read("bench")
    crop = "x".join(str(size) for size in run["crop"])
    return [
        f"Measured on {run['machine']}, preset `{run['preset']}`, {crop}, float32, one modality.",
        "",
        "| | |",
        "|---|--:|",
        f"| one pass | {run['gflop']:.0f} GFLOP |",
        f"| prediction | {run['forward_s']:.1f} s, {run['forward_peak_gb']:.1f} GB |",
        f"| training step | {run['step_s']:.1f} s, {run['step_peak_gb']:.1f} GB |",
        f"| matrix product of the machine, same run | {run['matrix_gflops']:.0f} GFLOP/s |",
        f"| share of it that prediction reaches | {100 * run['share_of_matrix_rate']:.0f} % |",
    ]


def filled(text):
    """A page with its tables made anew."""
    for table in (results, overfit, bench):
        name = table.__name__
        if f"<!-- table:{name} -->" in text:
            body = "\n".join(table())
            text = re.sub(
                f"<!-- table:{name} -->.*?<!-- /table:{name} -->",
                lambda _, name=name, body=body: f"<!-- table:{name} -->\n{body}\n<!-- /table:{name} -->",
                text,
                flags=re.DOTALL,
            )
    return text


def main(arguments):
    """Writes or checks. Returns the exit code."""
    stale = [page for page in PAGES if page.read_text() != filled(page.read_text())]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.name} does not say what experiments/results says; run python experiments/tables.py")
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
