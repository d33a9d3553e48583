"""Damaged input, made at random from good input: every reader returns or raises `InputError`, in no time.

Seeded, so that a failure repeats. `make test-large` takes thirty times as many.
"""

import csv
import gzip
import io
import json
import random
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record

from brats_tf.config.config import Config
from brats_tf.config.execution import PostProcessing
from brats_tf.data.case_lists import read_list
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import is_safe, parse
from brats_tf.data.nifti import read_header
from brats_tf.data.splits import Split
from brats_tf.data.volumes import geometry_notes, notes_of, read_segmentation, read_volume
from brats_tf.errors import InputError
from brats_tf.evaluation.contribution import read_contribution
from brats_tf.evaluation.results import read_scores, read_summary
from brats_tf.evaluation.scores import METRICS
from brats_tf.inference.postprocessing import with_tuned
from brats_tf.inference.prediction_record import chosen_on, read_prediction_record, uncertainties
from brats_tf.preprocessing.cache import read_cache_record
from brats_tf.preprocessing.preprocess import grid_of
from brats_tf.regions import REGIONS
from brats_tf.runs.history import VALIDATION_COLUMNS, read_history, read_validation
from brats_tf.runs.record import read_run_record
from brats_tf.runs.table import show_runs
from brats_tf.runtime.console import printable
from brats_tf.runtime.files import sha256_of
from brats_tf.runtime.lock import check_unlocked

ROUNDS = [300, pytest.param(30_000, marks=pytest.mark.large)]
LONGEST_S, MOST_BYTES = 1.0, 100e6  # Of one file; the good one takes a millisecond and a kilobyte.
SHAPE = (6, 7, 5)
# What replaces a value of a JSON file, or a cell of a CSV file.
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    2**40,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "\x1b[31m",
    [],
    {},
)
CELLS = ("", "x", "nan", "inf", "-1", "1e400", "../../x", "=cmd()", "\x00", "\x1b[31m", "\ud7ff", ",", '"', "\r")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good files, small and of several kinds: {name: bytes}."""
    folder, affine = tmp_path_factory.mktemp("good"), np.diag([-1.0, -1, 1, 1])
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE)
    good = {}
    for name, image in (
        ("int16.nii", nib.Nifti1Image(voxels.astype(np.int16), affine)),
        ("float32.nii.gz", nib.Nifti1Image(voxels.astype(np.float32), affine)),
        ("nifti2.nii.gz", nib.Nifti2Image(voxels.astype(np.uint8), affine)),
    ):
        image.header.set_slope_inter(*((2, 1) if name == "int16.nii" else (1, 0)))
        image.set_qform(affine, code=1)
        nib.save(image, folder / name)
        good[name] = (folder / name).read_bytes()
    return good


def damaged(content, dice):
    """Bytes with a few of them changed, most of them in the header; sometimes cut or doubled."""
    zipped = content[:2] == b"\x1f\x8b"
    raw = bytearray(gzip.decompress(content) if zipped else content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(min(len(raw), dice.choice((348, 348, 540, len(raw)))))
        kind = dice.randrange(4)
        if kind == 0:
            raw[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            raw[place] = dice.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            value = dice.choice((0, -1, 1e20, -1e-20, float("nan"), float("inf"), 3e38))
            raw[place : place + 4] = np.float32(value).tobytes()
        else:
            raw[place : place + 2] = np.int16(dice.choice((0, -1, 1, 2, 32767, -32768, 7, 348))).tobytes()
    if dice.random() < 0.05:
        raw = raw[: dice.randrange(len(raw))]
    if not zipped:
        return bytes(raw)
    packed = bytearray(gzip.compress(bytes(raw), 1))
    if dice.random() < 0.1:
        packed[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
    return bytes(packed)


def read_all(path):
    """Everything that the package reads of a volume before a network sees it."""
    geometry_notes(read_header(path, case_id="a"))
    read_segmentation(path, case_id="a")
    volume = read_volume(path, case_id="a")
    notes_of(volume)
    grid = grid_of(volume, (32, 32, 24), None, case_id="a")
    grid.to_file(grid.to_crop(np.asarray(volume.voxels)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rounds", ROUNDS)
def test_headers(files, tmp_path, rounds):
    dice, refused = random.Random(rounds), 0
    tracemalloc.start()
    for number in range(rounds):
        name = dice.choice(sorted(files))
        (tmp_path / name).write_bytes(damaged(files[name], dice))
        tracemalloc.reset_peak()
        began = time.perf_counter()
        try:
            read_all(tmp_path / name)
        except InputError as error:
            refused += 1
            assert str(error).startswith("Case a: ") and name in str(error), number
        assert time.perf_counter() - began < LONGEST_S, (number, name)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES, (number, name)
    tracemalloc.stop()
    assert rounds / 10 < refused < rounds


def places(value, path=()):
    """The paths of all values inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(value, dice):
    """A copy of a JSON value in which one place has another value, a strange key, or nothing."""
    copy = json.loads(json.dumps(value))
    *parents, last = dice.choice(list(places(copy))[1:])
    target = copy
    for key in parents:
        target = target[key]
    if dice.random() < 0.3:
        del target[last]
    elif isinstance(target, dict) and dice.random() < 0.1:
        target["\x1b[31m" if dice.random() < 0.5 else "x" * 300] = target.pop(last)
    else:
        target[last] = dice.choice(VALUES)
    return copy


def spoiled(text, dice):
    """A text with its bytes damaged."""
    content = bytearray(text.encode())
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(content[: dice.randrange(len(content))])
    if kind == 1:
        content[dice.randrange(len(content))] = dice.randrange(256)
        return bytes(content)
    if kind == 2:
        return text.encode("utf-16")
    return dice.choice((b"", b"\x00", b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"null", b"1e400", b"\xef\xbb\xbf{}"))


def json_readers(folder):
    """{file: (good content, what reads it)}."""
    settings = {"crop": (64, 64, 36), "folds": 5, "fold": 0}
    config = Config.from_preset("embedding", modalities=("flair",), **settings).to_dict()
    record = {"status": "finished", "epochs": 1, "settings": config, "data": "x", "validation": ["a"]}
    record |= {"last": {"loss": 1.0}, "began": "2026", "seconds": 1.0, "peak_memory_gb": 1.0, "device": "CPU"}
    figures = {"n": 1, "mean": 0.5, "std": 0.1, "median": 0.5, "low": 0.4, "high": 0.6, "quartile1": 0, "quartile3": 1}
    summary = {region: dict.fromkeys(METRICS, figures) for region in REGIONS}
    (folder / "cases.csv").write_text("x")
    summary |= {
        "empty_rule": "brats",
        "left_out": {"b": "bad"},
        "without_truth": [],
        "truth_sha256": {},
        "made_by": {"networks": {}},
        "cases": 1,
        "cases_sha256": sha256_of(folder / "cases.csv"),
    }
    kinds = {"normal": figures, "blinded": figures, "difference": figures, "p": 0.5}
    contribution = dict.fromkeys(REGIONS, kinds) | {
        "made_by": {"networks": {"flair": "0"}},
        "empty_rule": "brats",
        "cases": {},
    }
    tuned = {"drop_et_below_ml": 0.5, "networks": [folder.name], "weights": {folder.name: "0"}}
    tuned |= {"steps": {"remove_below_ml": 0.0, "fill_holes": False, "mirror": "none"}}
    (folder / "a.nii.gz").write_bytes(b"x")
    prediction = write_record(folder, ["a"], data=["/data"], left_out={"b": "bad"}, pending=["c"])
    prediction["cases"]["a"]["uncertainty"] = dict.fromkeys(REGIONS, 0.1)
    cached = {
        "case": "a",
        "part": "flair",
        "key": "0",
        "notes": [],
        "crc32": 1,
        "shape": [1, 1, 1],
        "box": [[0] * 3] * 2,
    }
    cached |= {"affine": np.eye(4).tolist(), "source": {"path": "a", "sha256": "0", "bytes": 1, "mtime_ns": 1}}
    task01 = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": "./a.nii.gz", "label": "./a.nii.gz"}],
        "test": ["./a.nii.gz"],
    }
    listed = [{"id": "a", "flair": "a.nii.gz", "convention": "brats2017", "grade": "HGG", "patient": "p"}]
    split = {"how": "all", "seed": 0, "training": ["a"], "validation": ["b"]}
    lock = {"host": "h", "process": 1, "began": 1.0, "command": "x"}

    def read_record(path):
        found = read_prediction_record(path.parent)
        chosen_on(found), uncertainties(found)

    return {
        "config.json": (config, Config.load),
        "run.json": (record, lambda path: (read_run_record(path.parent), show_runs(path.parent))),
        "summary.json": (summary, lambda path: read_summary(path.parent)),
        "classifier.json": (contribution, lambda path: read_contribution(path.parent)),
        "postprocessing.json": (tuned, lambda path: with_tuned(PostProcessing(), [path.parent])),
        "prediction.json": (prediction, read_record),
        "a-flair-0123456789abcdef.volume.json": (cached, read_cache_record),
        "dataset.json": (task01, lambda path: find_cases(path.parent)),
        "list.json": (listed, read_list),
        "split.json": (split, lambda path: Split.load(path.parent)),
        ".lock": (lock, lambda path: check_unlocked(path.parent)),
    }


@pytest.mark.parametrize("rounds", ROUNDS)
def test_json_files(tmp_path, rounds):
    dice, refused = random.Random(rounds), 0
    readers = json_readers(tmp_path)
    for name, (content, read) in readers.items():
        path = tmp_path / name
        path.write_text(json.dumps(content))
        try:
            read(path)  # The good one.
        except InputError:
            assert name in (".lock", "dataset.json")  # Of another host; without a case.
        for number in range(rounds // len(readers)):
            text = json.dumps(mutated(content, dice))
            path.write_bytes(text.encode() if dice.random() < 0.8 else spoiled(text, dice))
            try:
                read(path)
            except InputError as error:
                refused += 1
                assert "\x1b" not in printable(str(error)), (name, number)
        path.unlink()
    assert refused > rounds / 4


@pytest.mark.parametrize("rounds", ROUNDS)
def test_csv_files(tmp_path, rounds):
    dice, refused = random.Random(rounds), 0
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    head = ["case", "region", *METRICS]
    tables = {
        "cases.csv": ([head, *(["a", r, *["0.5"] * len(METRICS)] for r in REGIONS)], lambda p: read_scores(p.parent)),
        "history.csv": (
            [["epoch", "dice_et", "dice_tc", "dice_wt", "loss"], ["0", "0.1", "0.2", "0.3", "1"]],
            lambda path: read_history(path.parent),
        ),
        "validation.csv": (
            [list(VALIDATION_COLUMNS), ["1", "a", "WT", "0.5"], ["1", "a", "ET", "0.5"]],
            lambda path: read_validation(path.parent),
        ),
        "list.csv": (
            [["id", "flair", "convention", "grade"], ["a", "a.nii.gz", "brats2017", "HGG"]],
            read_list,
        ),
        "name_mapping.csv": (
            [["Grade", "BraTS_2020_subject_ID"], ["HGG", "BraTS20_Training_001"]],
            lambda path: find_cases(path.parent),
        ),
    }
    for name, (rows, read) in tables.items():
        for number in range(rounds // len(tables)):
            changed = [list(row) for row in rows]
            row = dice.choice(changed)
            kind = dice.randrange(3)
            if kind == 0:
                row[dice.randrange(len(row))] = dice.choice(CELLS)
            elif kind == 1:
                del row[dice.randrange(len(row))]
            else:
                row.insert(dice.randrange(len(row) + 1), dice.choice((*CELLS, *row)))
            file = io.StringIO(newline="")
            csv.writer(file).writerows(changed)
            text = file.getvalue()
            content = text.encode() if dice.random() < 0.8 else spoiled(text, dice)
            (tmp_path / name).write_bytes(content)
            try:
                read(tmp_path / name)
            except InputError:
                refused += 1
            except BaseException:
                print(number, content)
                raise
        (tmp_path / name).unlink()
    assert refused > rounds / 10


@pytest.mark.parametrize("rounds", ROUNDS)
def test_case_ids(tmp_path, rounds):
    """An id that is taken stays inside its folder, is no option and no formula, and steers no terminal."""
    dice = random.Random(rounds)
    letters = 'aB0_-. /\\:*?"<>|=+@%$^~\x00\x1b\n\r\u202e\u00e9\ud7ff\U0001f9e0'
    for _ in range(rounds):
        case_id = "".join(dice.choice(letters) for _ in range(dice.randrange(0, 9)))
        parse(f"{case_id}_flair.nii.gz", case_id)
        if is_safe(case_id):
            path = tmp_path / f"{case_id}.nii.gz"
            assert path.resolve().parent == tmp_path.resolve() and path.name == f"{case_id}.nii.gz"
            assert case_id[0] not in "=+-@." and printable(case_id) == case_id
