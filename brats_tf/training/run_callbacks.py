"""All callbacks of a training run, with what they share and the order in which they run."""

import logging
from functools import partial

from brats_tf.errors import InputError
from brats_tf.inference.predictor import Predictor
from brats_tf.runs.files import CHECKPOINTS_FOLDER
from brats_tf.runs.record import read_run_record
from brats_tf.runtime.tensorflow import device_name
from brats_tf.training.callbacks import RunRecord, SaveCheckpoint, StopOnNonFinite, WarnOfDivergence
from brats_tf.training.checkpoints import Checkpoints
from brats_tf.training.distribution import agree, is_first, machines
from brats_tf.training.epoch_files import History, SaveWeights, ShowProgress
from brats_tf.training.optimisation import averaged_weights, learning_rate_callback
from brats_tf.training.pulse import WatchPulse
from brats_tf.training.tensorboard_images import TensorBoardImages
from brats_tf.training.validation import Validate

log = logging.getLogger(__name__)


class RunCallbacks:
    """All callbacks of one training, with what they share.

    Args:
        data: the `TrainingData`.
        ready: the `ready_network.ReadyNetwork`.
        run: the run's folder.
        strategy: the `tf.distribute.Strategy`.
        options: `train.TrainingOptions`.
    """

    def __init__(self, data, ready, run, *, strategy, options):
        self.data, self.config, self.ready, self.run = data, data.config, ready, run
        self.predictor = Predictor(self.config, ready.network, ready.forward)
        self.devices = strategy.num_replicas_in_sync
        self.averaged = averaged = partial(averaged_weights, ready.trainer.optimizer)
        writes = is_first()
        self.checkpoints = Checkpoints(run, [one.value for one in ready.trainer.state], data.identity, writes=writes)
        self.saving = SaveCheckpoint(
            self.checkpoints, minutes=options.checkpoint_minutes, agree=partial(agree, strategy)
        )
        watch = [WatchPulse(run.name)] if ready.trainer.pulse else []
        facts = self._facts() | ({"collapsed_epochs": watch[0].collapsed} if watch else {})
        self.record = RunRecord(run, self.config, facts, writes=writes)
        # The validation comes first: the others read its scores from the logs. The checkpoint comes last: it holds the
        # state of all of them.
        self.stateful = [
            learning_rate_callback(self.config.training),
            History(run, writes=writes),
            SaveWeights(run, ready.network, averaged, writes=writes),
            *watch,
            WarnOfDivergence(run.name),
            self.record,
        ]
        if data.validation:
            check = self.saving.stop_if_asked if machines() == 1 else lambda: None
            validate = Validate(data, run, self.predictor, averaged=averaged, between_cases=check, writes=writes)
            self.stateful.insert(0, validate)
            self.saving.is_long = validate.is_due  # Its scores take minutes: save before.
        self.saving.stateful = [callback for callback in self.stateful if hasattr(callback, "state")]

    def resume(self):
        """Restores variables and callbacks from the newest checkpoint. Returns its (epoch, step), or (0, 0)."""
        found = self.checkpoints.load()
        if found is None:
            self._refuse_lost_epochs()
            return 0, 0
        epoch, step, states = found
        for callback in self.saving.stateful:
            if callback.name in states:
                callback.restore(states[callback.name])
        log.info(f"Resuming {self.run} at epoch {epoch}, step {step}.")
        return epoch, step

    def _refuse_lost_epochs(self):
        """Raises `InputError` when a run that has epochs behind it has no checkpoint, instead of overwriting it."""
        before = read_run_record(self.run)
        if before and before["epochs"] > 1:  # The record of the first is written before its checkpoint.
            raise InputError(
                f"{self.run} must hold a checkpoint to go on from after {before['epochs']} epochs; none can be used. "
                f"Put its folder {CHECKPOINTS_FOLDER} back, or train anew with --restart, which keeps the old run."
            )

    def in_order(self, bar, start):
        """The callbacks in the order in which they must run, from the place `start` on."""
        steps = self.data.length.steps
        first = [StopOnNonFinite(self.data.names(self.devices))]
        images = []
        if is_first():
            how = {"planes_of": self.ready.planes_of, "averaged": self.averaged}
            images = [TensorBoardImages(self.run, self.predictor, self.data.displayed_case(), **how)]
        done = start[0] * steps + start[1]
        progress = ShowProgress(self.run.name, bar, total=self.config.training.epochs * steps, done=done)
        return [*first, *self.stateful, *images, self.saving, progress]

    def _facts(self):
        identity = self.data.identity
        known = {"device": device_name(), "devices": self.devices, "cases": len(self.data.stored)}
        known["initial_weights"] = {"origin": self.ready.origin, "classifier_sha256": self.ready.classifier_sha256}
        return known | {name: identity[name] for name in ("data", "validation")}
