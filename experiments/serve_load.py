"""A server under load: eight clients upload real cases for two minutes, one upload in twenty is damaged.

`brats-tf serve` runs in a process of its own. Each answer is compared with the label map that `predict` writes for that
case, and the memory of the server is read after every client's first answer and at the end.

Command:  python experiments/serve_load.py RUN DATA [--seconds 120] [--clients 8]
Time:     the seconds, and half a minute before them.
Expected: no wrong answer, no lost request, damaged uploads answered by 422, flat memory.

Needs the extra `serve` and httpx. Writes RESULTS/serve_load.json.
"""

import gzip
import logging
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import psutil
from provenance import provenance
from run_and_data import run_and_data

from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, labels_to_classes
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
BAD_SHARE = 0.05
PATIENCE_SECONDS = 300


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = run_and_data(__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=8)
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Predicts, serves, loads the server and writes what was found."""
    cases = find_cases(given.data)[0]
    with tempfile.TemporaryDirectory() as folder:
        networks = ["--runs", str(given.run.parent), "--networks", given.run.name]
        words = [sys.executable, "-m", "brats_tf", "predict", str(given.data), *networks, "--out", folder]
        subprocess.run(words, check=True, capture_output=True)  # noqa: S603
        expected = {
            case.id: classes_in(Path(folder, f"{case.id}.nii.gz").read_bytes(), case.convention) for case in cases
        }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "brats_tf", "serve", *networks, "--port", str(port)]
    server = subprocess.Popen(words)  # noqa: S603
    try:
        load = Load(f"http://127.0.0.1:{port}", cases, expected, psutil.Process(server.pid))
        wait_for(load.address, server)
        found = load.measure(given.clients, given.seconds)
    finally:
        server.terminate()
        server.wait()
    facts = {"run": given.run.name, "cases": len(cases), "clients": given.clients, "seconds": given.seconds}
    write_json(given.results / "serve_load.json", provenance() | facts | {"bad_share": BAD_SHARE} | found)
    log.info(f"Written to {given.results / 'serve_load.json'}.")


def classes_in(content, convention):
    """(classes, affine) of a label map, from the bytes of its file; `predict` writes the numbers of a case's year."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    return labels_to_classes(np.asarray(image.dataobj), convention), image.affine


def same(one, other):
    """Whether two of `classes_in` are equal."""
    return all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def wait_for(address, server):
    """Returns when the server answers. Raises `InputError` when it ends before."""
    while True:
        try:
            httpx.get(f"{address}/health")
            return
        except httpx.TransportError:
            if server.poll() is not None:
                raise InputError(f"The server ended with exit code {server.returncode}.") from None
            time.sleep(0.2)


class Load:
    """Clients that upload cases until the time is over."""

    def __init__(self, address, cases, expected, process):
        self.address, self.expected, self.process = address, expected, process
        self.files = {
            case.id: {name: (path.name, path.read_bytes()) for name, path in case.volumes.items()} for case in cases
        }
        self.answers, self.seconds, self.memory = Counter(), [], []
        self.wrong = self.wrong_refusals = self.lost = 0
        self.guard = threading.Lock()

    def measure(self, clients, seconds):
        """Runs the clients: what was found, as JSON can hold it."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(number, end)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.memory.append(self.process.memory_info().rss)
        return {
            "answers": {str(status): count for status, count in self.answers.items()},
            "wrong": self.wrong,
            "wrong_refusals": self.wrong_refusals,
            "lost": self.lost,
            "median_seconds": statistics.median(self.seconds),
            "longest_seconds": max(self.seconds),
            "memory_first_gb": self.memory[-2] / 1e9,
            "memory_last_gb": self.memory[-1] / 1e9,
        }

    def client(self, number, end):
        """Uploads one case after another."""
        random, first = np.random.default_rng(number), True
        while time.monotonic() < end:
            case = random.choice(sorted(self.files))
            bad = random.random() < BAD_SHARE
            files = dict(self.files[case])
            if bad:
                name, content = files["flair"]
                files["flair"] = (name, content[: len(content) // 2])
            started = time.monotonic()
            try:
                answer = httpx.post(f"{self.address}/label-map", files=files, timeout=PATIENCE_SECONDS)
            except httpx.HTTPError:
                answer = None
            seconds = time.monotonic() - started
            right = answer is not None and not bad and self.is_right(answer, case)
            with self.guard:
                self.note(answer, bad, right, seconds)
                if first:
                    self.memory.append(self.process.memory_info().rss)
                    first = False

    def is_right(self, answer, case):
        """Whether an answer is the label map of a case; what cannot be read is not."""
        try:
            return answer.status_code == 200 and same(classes_in(answer.content, BRATS_2017), self.expected[case])
        except Exception:  # Whatever a wrong answer leads nibabel and gzip to raise.
            return False

    def note(self, answer, bad, right, seconds):
        """Counts one answer."""
        if answer is None:
            self.lost += 1
            return
        self.answers[answer.status_code] += 1
        if bad:
            self.wrong_refusals += answer.status_code != 422 or "damaged or truncated" not in answer.text
            return
        self.seconds.append(seconds)
        self.wrong += not right


if __name__ == "__main__":
    sys.exit(main())
