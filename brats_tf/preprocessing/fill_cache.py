"""Fill and check the store of prepared cases: workers, progress, estimates, and what to say about what was found."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from brats_tf.errors import InputError, WriteError
from brats_tf.preprocessing.cache import Store, damage, entries, entry_bytes, orphans, read_record, record_path
from brats_tf.runtime.console import say, track
from brats_tf.runtime.files import remove_partial

SHOWN = 5  # Case ids named in a note; more are counted.


def prepare_cases(cases, *, parts, settings, folder, workers=None, skip_bad=False):
    """Prepares cases into a store; what is there already is taken as it is.

    Args:
        cases: `Case`s.
        parts: modalities, and "seg" where truth is wanted.
        settings: `store.Settings`.
        folder: of the store.
        workers: how many cases at once; None for one a core. Threads: they spend their time in NumPy and in gunzip.
        skip_bad: leave bad cases out, with a line for each, instead of refusing.

    Returns:
        A list of `StoredCase`, in the order of `cases`.

    Raises:
        InputError: when a case is bad (all are tried first, so that all are named), or none is left.
        WriteError: when the disk is full or too small, or the folder closed.
    """
    if not cases:
        return []
    workers = workers or available_cores()
    remove_partial(folder)
    store = Store(folder)
    pending = _announce(store, cases, parts, settings, workers)
    stored, notes, failures, started = {}, {}, {}, time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        # What is to be prepared comes first, so that the estimate is about that.
        ordered = sorted(cases, key=lambda case: case.id not in pending)
        jobs = {pool.submit(store.store, case, parts, settings): case for case in ordered}
        try:
            for number, job in enumerate(track(as_completed(jobs), "Preparing", total=len(jobs)), start=1):
                case = jobs[job]
                try:
                    stored[case.id], its_notes = job.result()
                except WriteError:
                    raise
                except InputError as error:
                    failures[case.id] = str(error)
                    continue
                for note in its_notes:
                    notes.setdefault(note, []).append(case.id)
                if number == workers:
                    _estimate(time.monotonic() - started, len(pending), workers)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    say_notes(notes)
    _doubt_the_rest(cases, failures)
    _refuse_or_say([failures[case.id] for case in cases if case.id in failures], cases, skip_bad=skip_bad)
    return [stored[case.id] for case in cases if case.id not in failures]


def verify_store(folder):
    """Reads every entry of a store and compares it with its record; removes what is damaged or incomplete.

    Returns:
        A list of sentences, one for each entry removed; the next preparation makes them anew.

    Raises:
        InputError: when the folder is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The store {folder} does not exist or is no folder.")
    remove_partial(folder)
    records = {path: read_record(path) for path in entries(folder)}
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
        say(sentence)
    say(f"{len(records)} entries in {folder}, {len(removed)} removed.")
    return sentences


def available_cores():
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _doubt_the_rest(cases, failures):
    """Where one case's labels show that a doubtful layout was read wrongly, none of that layout can be trusted."""
    doubtful = {
        case.layout.note for case in cases if case.layout.note and case.layout.note in failures.get(case.id, "")
    }
    for case in cases:
        if case.layout.note in doubtful:
            failures.setdefault(
                case.id, f"Case {case.id}: labels of other cases do not fit its layout: {case.layout.note}."
            )


def say_notes(notes):
    """Prints {note: case ids}, a line each."""
    for note, ids in notes.items():
        say(f"Note: {note}: {_named(ids)}.")


def _announce(store, cases, parts, settings, workers):
    """Says what is to be done and how much room it takes; returns the ids of cases with something to prepare."""
    missing, broken = {}, False
    for case in cases:
        try:
            missing[case.id] = [part for part in parts if store.find(case, part, settings) is None]
        except InputError:  # A file is not there; preparing the case will say so.
            broken = True
    pending = {case_id for case_id, wanted in missing.items() if wanted}
    files = sum(len(wanted) for wanted in missing.values())
    size = sum(entry_bytes(part, settings.crop) for wanted in missing.values() for part in wanted)
    if not files:
        if not broken:
            say(f"All {len(cases)} cases are prepared in {store.folder}.")
        return pending
    say(
        f"Preparing {files} files of {len(pending)} cases, {size / 1e9:.2g} GB, into {store.folder} with {workers} "
        f"{'workers' if workers > 1 else 'worker'}; {len(missing) * len(parts) - files} are there already."
    )
    free = shutil.disk_usage(_existing(store.folder)).free
    if size > free:
        raise WriteError(
            f"The store {store.folder} needs {size / 1e9:.3g} GB for these cases; the disk has {free / 1e9:.3g} GB "
            "left. Choose another place with --store, a smaller --crop or fewer modalities."
        )
    return pending


def _existing(folder):
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _estimate(seconds, missing, workers):
    """Says, after the first cases, how long the rest will take."""
    left = seconds / workers * max(missing - workers, 0)
    if left > 5:
        say(f"The first took {seconds / workers:.2g} s each: about {max(left / 60, 0.1):.1f} minutes for the rest.")


def _named(ids):
    more = len(ids) - SHOWN
    return ", ".join(sorted(ids)[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse_or_say(sentences, cases, *, skip_bad):
    if sentences and not (skip_bad and len(sentences) < len(cases)):
        hint = "" if skip_bad else " Mend them, or leave them out with --skip-bad."
        verdict = f"{len(sentences)} of {len(cases)} cases cannot be used.{hint}"
        raise InputError("\n".join([*sentences, verdict]))
    for sentence in sentences:
        say(f"Left out: {sentence}")
