"""Writes the tables of the pages from experiments/results, or checks them, or publishes new results.

Command:  python experiments/tables.py                     (writes)
          python experiments/tables.py --check             (exit code 1 when a page does not say what the files say)
          python experiments/tables.py --publish RESULTS   (copies what commands wrote into RESULTS, then writes)
"""

import argparse
import inspect
import re
import shutil
import sys
from pathlib import Path

import deployment_tables
import paper_tables
import plus_tables
import real_case_tables
import speed_tables
from results_files import FOLDER, REPOSITORY

PAGES = (
    REPOSITORY / "README.md",
    FOLDER / "README.md",
    *sorted(page for page in (REPOSITORY / "docs").rglob("*.md") if "_build" not in page.parts),
)
# What lies in a results folder, and where it is published.
PUBLISHED = {
    "summary.json": "experiments/results/demo.json",
    "untrained/summary.json": "experiments/results/demo_untrained.json",
    "bench.json": "experiments/results/bench.json",
    "bench_efficientnetb7.json": "experiments/results/bench_efficientnetb7.json",
    "bench_training-float32.json": "experiments/results/bench_training-float32.json",
    "bench_training-embedding-plus-float32.json": "experiments/results/bench_training-embedding-plus.json",
    "bench_training-embedding-plus.json": "experiments/results/bench_training-embedding-plus.json",
    "bench_comparison.json": "experiments/results/bench_comparison.json",
    "bench_comparison-avx512.json": "experiments/results/bench_comparison-avx512.json",
    "bench_comparison-float32.json": "experiments/results/bench_comparison-float32.json",
    "bench_data.json": "experiments/results/bench_data.json",
    "bench_growth.json": "experiments/results/bench_growth.json",
    "bench_training.json": "experiments/results/bench_training.json",
    "bench_windows.json": "experiments/results/bench_windows.json",
    "backbones.json": "brats_tf/models/backbones.json",
    "overfit_one_case/summary.json": "experiments/results/overfit_one_case.json",
    "scaling_and_batch_norm/summary.json": "experiments/results/scaling_and_batch_norm.json",
    **{f"living_planes-{name}.json": f"experiments/results/living_planes-{name}.json" for name in ("flair", "t1ce")},
    **{
        f"classifier_contribution-{name}.json": f"experiments/results/classifier_contribution-{name}.json"
        for name in ("variants", "gpu")
    },
    "scaling_and_batch_norm/figure.png": "experiments/results/scaling_and_batch_norm.png",
    "real_cases.json": "experiments/results/real_cases.json",
    **{f"real_cases-{name}.json": f"experiments/results/real_cases-{name}.json" for name in ("2mm", "parts", "folds")},
    "exact_normalisation.json": "experiments/results/exact_normalisation.json",
    "exact_biases.json": "experiments/results/exact_biases.json",
    "fewer_products.json": "experiments/results/fewer_products.json",
    **{
        f"{name}/{file}.json": f"experiments/results/{name}{end}.json"
        for name in ("plus_on_cpu", "plus_on_cpu_fine")
        for file, end in {"run": "_run", "summary": "", "averaged": "_averaged", "classifier": "_classifier"}.items()
    },
    **{
        f"plus_two_seeds/{name}.json": f"experiments/results/plus_two_seeds_{name}.json"
        for name in ("run1", "run2", "seed1", "seed2", "both", "plain", "classifier")
    },
    **{
        f"plus_folds/{name}.json": f"experiments/results/plus_folds{end}.json"
        for name, end in {"summary": "", "two": "_two", "both": "_both"}.items()
    },
    **{
        f"plus_folds/{name}{fold}.json": f"experiments/results/plus_folds_{name}{fold}.json"
        for name in ("run", "second")
        for fold in range(5)
    },
    "cohort_on_ray.json": "experiments/results/cohort_on_ray.json",
    "serve_load.json": "experiments/results/serve_load.json",
    "runtimes.json": "experiments/results/runtimes.json",
    "round_trip.json": "experiments/results/round_trip.json",
    "registration_tools.json": "experiments/results/registration_tools.json",
    "albunet_table1/short/summary.json": "experiments/results/albunet_table1.json",
    "albunet_table1/short/curves.png": "experiments/results/albunet_curves.png",
    "albunet_table1/short/boxplot.png": "experiments/results/albunet_boxplot.png",
}
# Each function of these modules makes the lines of the table that is called as it is.
MODULES = (deployment_tables, paper_tables, plus_tables, real_case_tables, speed_tables)
TABLES = {
    name: function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}


def publish(results):
    """Copies what commands wrote into a results folder to where the tables read it. Returns the paths copied."""
    found = {Path(results) / name: REPOSITORY / target for name, target in PUBLISHED.items()}
    copied = [path for path in found if path.is_file()]
    if not (Path(results) / "untrained").is_dir():  # Scores of something else than `make demo`.
        copied = [path for path in copied if path != Path(results) / "summary.json"]
    for path in copied:
        shutil.copyfile(path, found[path])
    return copied


def filled(text):
    """A page with its tables made anew."""

    def table(found):
        name = found["name"]
        if name not in TABLES:
            raise SystemExit(f"`table:{name}` must be one of {', '.join(sorted(TABLES))}.")
        return "\n".join([f"<!-- table:{name} -->", *TABLES[name](), f"<!-- /table:{name} -->"])

    return re.sub(r"<!-- table:(?P<name>\w+) -->.*?<!-- /table:(?P=name) -->", table, text, flags=re.DOTALL)


def main(arguments):
    """Writes, checks or publishes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, metavar="RESULTS", help="first copy what commands wrote into RESULTS")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is stale")
    given = parser.parse_args(arguments)
    if given.publish:
        copied = publish(given.publish)
        print("\n".join(f"published {path}" for path in copied) or "nothing to publish")
    written = {page: page.read_text() for page in PAGES}
    stale = {page: new for page, text in written.items() if (new := filled(text)) != text}
    if given.check:
        for page in stale:
            print(f"{page.name} does not say what experiments/results says; run python experiments/tables.py")
        return 1 if stale else 0
    for page, text in stale.items():
        page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
