"""Embedding a 2D ImageNet classifier in a 3D brain-tumour segmenter, in Keras.

The names in `__all__` are the public API, loaded on first use; the modules behind them are internal.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brats_tf.config.config import Config
    from brats_tf.data.discovery import find_cases
    from brats_tf.evaluation.evaluate import evaluate
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import predict_cases
    from brats_tf.models.albunet import albunet
    from brats_tf.models.embedding import embedding_network
    from brats_tf.pipeline.stream import training_dataset
    from brats_tf.preprocessing.fill_cache import prepare_cases
    from brats_tf.runs.network import load_network
    from brats_tf.training.train import train

__version__ = "0.1.0"
__all__ = [
    "Config",
    "albunet",
    "embedding_network",
    "evaluate",
    "find_cases",
    "load_ensemble",
    "load_network",
    "predict_cases",
    "prepare_cases",
    "train",
    "training_dataset",
]
_HOMES = {
    "Config": "config.config",
    "albunet": "models.albunet",
    "embedding_network": "models.embedding",
    "evaluate": "evaluation.evaluate",
    "find_cases": "data.discovery",
    "load_ensemble": "inference.ensemble",
    "load_network": "runs.network",
    "predict_cases": "inference.predict",
    "prepare_cases": "preprocessing.fill_cache",
    "train": "training.train",
    "training_dataset": "pipeline.stream",
}


def __getattr__(name: str) -> Any:
    """Loads a name of the public API; TensorFlow is imported quietly where the name needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in ("Config", "find_cases", "prepare_cases"):
        from brats_tf.runtime.tensorflow import import_tensorflow

        import_tensorflow(whole=True)  # In a notebook, Keras serves others too.
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
