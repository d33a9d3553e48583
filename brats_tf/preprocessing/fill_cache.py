"""Fills and verifies the cache of preprocessed cases: workers, progress, estimates, notes."""

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from brats_tf.data.case import Case
from brats_tf.data.notes import log_notes, misread
from brats_tf.errors import InputError, WriteError, about
from brats_tf.preprocessing.cache import (
    Cache,
    CachedCase,
    CacheSettings,
    damage,
    entries,
    entry_bytes,
    orphans,
    read_cache_record,
    record_path,
)
from brats_tf.runtime.console import track
from brats_tf.runtime.files import remove_partial
from brats_tf.runtime.ray_pool import RayExecutor
from brats_tf.runtime.system import available_cores

log = logging.getLogger(__name__)


def prepare_cases(
    cases: Sequence[Case],
    *,
    parts: Sequence[str],
    settings: CacheSettings,
    folder: str | Path,
    workers: int | RayExecutor | None = None,
    skip_invalid: bool = False,
) -> list[CachedCase]:
    """Preprocesses cases into a cache; existing entries are reused.

    Args:
        cases: `Case`s.
        parts: modalities, and "seg" where truth is wanted.
        settings: crop (H, W, D) in voxels and spacing in mm.
        folder: of the cache.
        workers: cases at once; None for one per core. Threads: they spend their time in NumPy and in gunzip. Or
            processes of Ray.
        skip_invalid: exclude invalid cases, with a line for each, instead of refusing.

    Returns:
        A list of `CachedCase`, in the order of `cases`.

    Raises:
        InputError: when a case is bad (all are tried first, so that all are named), or none is left.
        WriteError: when the disk is full or too small, or the folder is read-only.
    """
    if not cases:
        return []
    count = workers.workers if isinstance(workers, RayExecutor) else workers or available_cores()
    pool = workers if isinstance(workers, RayExecutor) else ThreadPoolExecutor(count)
    remove_partial(folder)
    cache = Cache(folder)
    pending = _announce(cache, cases, parts, settings, count)
    # What is still to be done comes first, so that the estimate is about that.
    ordered = sorted(cases, key=lambda case: case.id not in pending)
    add = partial(cache.add, parts=parts, settings=settings)
    estimate = partial(_estimate, missing=len(pending), workers=count)
    cached, notes, failures = _add_all(add, ordered, pool, estimate)
    log_notes(notes)
    failures |= misread(cases, failures)
    sentences = [failures[case.id] for case in cases if case.id in failures]
    if sentences and not (skip_invalid and len(sentences) < len(cases)):
        hint = "" if skip_invalid else " Fix them, or exclude them with --skip-invalid."
        verdict = f"{len(sentences)} of {len(cases)} cases cannot be used.{hint}"
        raise InputError("\n".join([*sentences, verdict]))
    for sentence in sentences:
        log.info(f"Left out: {sentence}")
    return [cached[case.id] for case in cases if case.id not in failures]


def verify_cache(folder: str | Path) -> list[str]:
    """Reads every entry of a cache and compares it with its record; removes what is damaged or incomplete.

    Returns:
        A list of sentences, one for each entry removed; the next preparation creates them again.

    Raises:
        InputError: when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The cache {folder} does not exist or is not a folder.")
    remove_partial(folder)
    records = {path: read_cache_record(path) for path in entries(folder)}
    removed = []
    with ThreadPoolExecutor(available_cores()) as pool:
        reasons = pool.map(
            lambda record: damage(folder, record) if record else "its record is damaged", records.values()
        )
        for path, reason in zip(records, track(reasons, "Verifying", total=len(records)), strict=True):
            if reason:
                removed.append((path.with_suffix(""), reason))
    removed += [(path, "it has no record") for path in orphans(folder)]
    for path, _ in removed:
        path.unlink(missing_ok=True)
        record_path(path).unlink(missing_ok=True)
    sentences = [f"Removed {path}: {reason}." for path, reason in removed]
    for sentence in sentences:
        log.info(sentence)
    log.info(f"{len(records)} entries in {folder}, {len(removed)} removed.")
    return sentences


def _add_all(add, cases, pool, estimate):
    """Calls `add(case)` for all cases: ({case id: cached}, {note: case ids}, {case id: sentence})."""
    cached, notes, failures, started = {}, {}, {}, time.monotonic()
    with pool:
        jobs = {pool.submit(add, case): case for case in cases}
        try:
            for number, job in enumerate(track(as_completed(jobs), "Preprocessing", total=len(jobs)), start=1):
                case = jobs[job]
                try:
                    cached[case.id], notes_on_case = job.result()
                except WriteError:
                    raise
                except InputError as error:
                    failures[case.id] = about(case.id, error)
                    continue
                for note in notes_on_case:
                    notes.setdefault(note, []).append(case.id)
                estimate(number, time.monotonic() - started)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return cached, notes, failures


def _announce(cache, cases, parts, settings, workers):
    """Logs the work and the disk space it needs; returns the ids of cases with something to preprocess."""
    missing, broken = {}, False
    for case in cases:
        try:
            missing[case.id] = [part for part in parts if cache.find(case, part, settings) is None]
        except InputError:  # A file is missing; preparing the case will say so.
            broken = True
    pending = {case_id for case_id, wanted in missing.items() if wanted}
    files = sum(len(wanted) for wanted in missing.values())
    size = sum(entry_bytes(part, settings.crop) for wanted in missing.values() for part in wanted)
    if not files:
        if not broken:
            log.info(f"All {len(cases)} cases are preprocessed in {cache.folder}.")
        return pending
    log.info(
        f"Preprocessing {files} files of {len(pending)} cases, {size / 1e9:.2g} GB, into {cache.folder} with {workers} "
        f"{'workers' if workers > 1 else 'worker'}; {len(missing) * len(parts) - files} are already there."
    )
    free = shutil.disk_usage(_existing(cache.folder)).free
    if size > free:
        raise WriteError(
            f"The cache {cache.folder} needs {size / 1e9:.3g} GB for these cases; the disk has {free / 1e9:.3g} GB "
            "left. Choose another place with --cache-dir, a smaller --crop or fewer modalities."
        )
    return pending


def _existing(folder):
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _estimate(number, seconds, missing, workers):
    """Logs, after the first cases, how long the rest will take."""
    if number != workers:
        return
    left = seconds / workers * max(missing - workers, 0)
    if left > 5:
        log.info(
            f"The first took {seconds / workers:.2g} s each: about {max(left / 60, 0.1):.1f} minutes for the rest."
        )
