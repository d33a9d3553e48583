"""The trained run that a training starts from: checked before anything is prepared, then its weights filled in."""

import logging

from brats_tf.config.config import CONFIG_FILE
from brats_tf.data.case import patient_of
from brats_tf.data.splits import SPLIT_FILE, training_cases
from brats_tf.errors import InputError
from brats_tf.models.build import classifier_hash
from brats_tf.runs.files import CHECKPOINT_FILES
from brats_tf.runs.network import load_weights, run_to_start_from
from brats_tf.runs.record import read_run_record
from brats_tf.runtime.files import sha256_of

log = logging.getLogger(__name__)
DIGITS = 12  # Of a SHA-256 in a record.


def check_start(config, run, *, restart, network=None):
    """Checks the run that a training in the folder `run` starts from; one that goes on, or is finished, has started.

    Args:
        config: the `Config` of the training.
        run: its folder.
        restart: whether what is in that folder gives way.
        network: one that the weights must fit; None where it is not built yet.

    Raises:
        InputError: when the run to start from is missing, that of the training itself, of another network or damaged.
    """
    if not config.training.start_from:
        return
    if (run / CONFIG_FILE).is_file() and not restart:
        _warn_of_newer(config, run)
        return
    start = run_to_start_from(config)
    if start.resolve() == run.resolve():
        raise InputError(f"`start_from` must be another run than the one to train: --name names it. Received: {run}.")
    if not (start / CHECKPOINT_FILES["last"]).is_file():
        raise InputError(f"`start_from` must be a trained run. Received: {start}, without {CHECKPOINT_FILES['last']}.")
    if network is not None:
        own = network.get_weights()
        load_weights(network, start)
        network.set_weights(own)


def _warn_of_newer(config, run):
    """Warns where the run to start from holds other weights now than when this training started from it."""
    origin = (read_run_record(run) or {}).get("initial_weights", {}).get("origin", "")
    try:
        path = run_to_start_from(config) / CHECKPOINT_FILES["last"]
    except InputError:
        return  # A run that has started needs it no more.
    if "SHA-256" in origin and path.is_file() and sha256_of(path)[:DIGITS] not in origin:
        log.warning(f"{path} holds other weights now than when {run} started from it; --restart trains it anew.")


def warn_of_known_patients(config, validation):
    """Warns where patients of these cases, ids, have trained the run to start from, or nobody can know."""
    if not validation:
        return
    start = run_to_start_from(config)
    trained = training_cases(start)
    if trained is None:
        log.warning(f"{start} has no {SPLIT_FILE}: whether it was trained on cases that validate is not known.")
        return
    patients = {patient_of(case_id) for case_id in trained}
    known = sorted(case_id for case_id in validation if patient_of(case_id) in patients)
    if known:
        log.warning(
            f"{len(known)} of {len(validation)} cases kept from training are of patients that have trained {start}, "
            f"whose weights this training starts from, such as {known[0]}: their scores will be too good."
        )


def fill_in_start(network, config):
    """Fills in the weights of the run to start from. Returns what `run.json` says of them."""
    run = run_to_start_from(config)
    origin = f"the weights of {run.name}, SHA-256 {load_weights(network, run)[:DIGITS]}"
    return {"origin": origin, "classifier_sha256": classifier_hash(network)}
