"""What a run of an earlier call has settled for the calls that go on with it."""

from pathlib import Path

from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.errors import InputError


def asked_precision(config: Config, run: Path, *, restart: bool) -> str:
    """The number format that a config asks for; where that is "auto", the one that its run began in, if there is one.

    So that a run goes on on another machine, whatever that one would begin in.
    """
    if config.compute.precision == "auto" and not restart and (run / CONFIG_FILE).is_file():
        return Config.load(run).compute.precision
    return config.compute.precision


def with_saved_epochs(config: Config, run: Path, *, restart: bool) -> Config | None:
    """The config with the epochs that a run of an earlier call with `--minutes` settled on; None where there is none.

    One that these do not fit is of another schedule, and is given back as it is: `check_run` says what differs.
    """
    if restart or not (run / CONFIG_FILE).is_file():
        return None
    saved = Config.load(run).training
    try:
        return config.replace(epochs=saved.epochs, warmup_epochs=saved.warmup_epochs)
    except InputError:
        return config
