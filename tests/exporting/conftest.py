import keras
import pytest
from untrained_runs import untrained


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two networks of one modality, untrained."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)
    return [untrained(folder / name, modalities=(name,)) for name in ("flair", "t1ce")]
