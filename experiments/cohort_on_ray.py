"""A cohort by one process and by Ray's, one of which is killed: time, memory, and whether the label maps are the same.

The cases of DATA are predicted under several names, so that the start counts little: by one process, by one of Ray, by
two, and by two of which one is killed with SIGKILL when a third of the label maps are there.

Command:  python experiments/cohort_on_ray.py RUN DATA [--repeats 4]
Time:     the first line says; for 8 cases and one network ten minutes on two cores.
Expected: equal label maps in all rows where each process computes with as many cores; Ray's copies cost 0.4 s a case,
          besides its start.

Needs the extra `ray`. Writes RESULTS/cohort_on_ray.json.
"""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import psutil
from provenance import provenance
from run_and_data import run_and_data

from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.runtime.console import track
from brats_tf.runtime.files import sha256_of, write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
# What a row is called: processes of Ray (0: without it), and whether one is killed.
ROWS = {
    "one process": (0, False),
    "Ray, one process": (1, False),
    "Ray, two processes": (2, False),
    "Ray, two processes, one killed": (2, True),
}
WORKER = "ray::Worker"


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = run_and_data(__doc__)
    parser.add_argument("--repeats", type=int, default=4, help="names of each case (default: 4)")
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Predicts the cohort in each way and writes what was found."""
    cases = find_cases(given.data)[0]
    count = len(cases) * given.repeats
    log.info(
        f"Predicting {count} cases in {len(ROWS)} ways: about {count * len(ROWS) * 8 / 60:.0f} minutes on two cores."
    )
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder, "cohort")
        write_cohort(cases, given.repeats, cohort)
        for name, (workers, kill) in track(list(ROWS.items()), "Measuring"):
            out = Path(folder, name.replace(" ", "-"))
            command = [sys.executable, "-m", "brats_tf", "predict", str(cohort), "--runs", str(given.run.parent)]
            command += ["--networks", given.run.name, "--out", str(out)]
            command += ["--engine", "ray", "--workers", str(workers)] if workers else []
            rows[name] = measure(command, out, killed_at=count // 3 if kill else None)
            rows[name]["label_maps"] = {path.name: sha256_of(path) for path in out.glob("*.nii.gz")}
    expected = rows["one process"]["label_maps"]
    for row in rows.values():
        found = row.pop("label_maps")
        row["different"] = sum(found.get(name) != sha256 for name, sha256 in expected.items())
    facts = {"run": given.run.name, "cases": count, "rows": rows}
    write_json(given.results / "cohort_on_ray.json", provenance() | facts)
    log.info(f"Written to {given.results / 'cohort_on_ray.json'}.")


def write_cohort(cases, repeats, folder):
    """Links the files of the cases under `repeats` names each."""
    for case in cases:
        for number in range(repeats):
            new = folder / f"{case.id}-{number}"
            new.mkdir(parents=True)
            for path in case.volumes.values():
                os.symlink(path.resolve(), new / path.name.replace(case.id, new.name))


def measure(command, out, killed_at=None):
    """Runs `predict`: its seconds, those to the first label map, the largest memory of a process with networks.

    With `killed_at`, one process of Ray is killed when so many label maps are there.
    """
    started = time.monotonic()
    running = subprocess.Popen(command)  # noqa: S603
    found = {"memory_gb": 0.0, "killed": 0, "seconds_to_first": None}
    watching = threading.Thread(target=watch, args=(running, out, killed_at, found, started))
    watching.start()
    code = running.wait()
    watching.join()
    if code:
        raise InputError(f"`predict` ended with exit code {code}.")
    return found | {"seconds": time.monotonic() - started}


def watch(running, out, killed_at, found, started):
    """Notes the largest memory of a process that holds networks, and kills one in time."""
    while running.poll() is None:
        processes = holders(running.pid)
        found["memory_gb"] = max([found["memory_gb"], *(memory_of(process) for process in processes)])
        written = len(list(out.glob("*.nii.gz"))) + len(list(out.glob("shards/*/*.nii.gz")))
        if written and not found["seconds_to_first"]:
            found["seconds_to_first"] = time.monotonic() - started
        if killed_at and written >= killed_at and not found["killed"] and processes:
            processes[0].kill()
            found["killed"] = 1
        time.sleep(0.1)


def holders(pid):
    """The processes that hold networks: Ray's workers, or the one without Ray."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        workers = [process for process in children if WORKER in " ".join(process.cmdline())]
        return workers or [psutil.Process(pid)]
    except psutil.Error:
        return []


def memory_of(process):
    """What a process holds for itself, in GB."""
    try:
        return process.memory_full_info().uss / 1e9
    except psutil.Error:
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
