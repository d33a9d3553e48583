"""The names of the files in a run's folder."""

RECORD_FILE = "run.json"
HISTORY_FILE = "history.csv"
VALIDATION_FILE = "validation.csv"
WEIGHTS_FILE = "network.weights.h5"
BEST_WEIGHTS_FILE = "best.weights.h5"
POSTPROCESSING_FILE = "postprocessing.json"
CURVES_FILE = "training.png"
CHECKPOINTS_FOLDER = "checkpoints"
TENSORBOARD_FOLDER = "tensorboard"
FIGURES_FOLDER = "figures"
CHECKPOINT_FILES = {"last": WEIGHTS_FILE, "best": BEST_WEIGHTS_FILE}  # `--checkpoint`: whose weights predict.
