"""What several tests share: a tiny classifier, made-up cases, and where the real cases lie."""

import gc
import os
import shutil
from pathlib import Path

import pytest

from brats_tf.runtime.console import show_log
from brats_tf.runtime.system import resident_gb
from brats_tf.runtime.tensorflow import free_graphs, import_tensorflow

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # Byte-equal runs and golden values are promised on a CPU alone.
import_tensorflow()
show_log()
gc.set_threshold(200_000, 50, 1000)  # Traced networks are millions of objects that stay: looking at them takes 6 %.

import keras
from forked_trainings import Trainings
from repository import REPOSITORY
from tiny_networks import TINY_SPACING_MM, register
from untrained_runs import networks_of_two_convolutions

from brats_tf.data.discovery import find_cases
from brats_tf.data.phantoms import write_phantoms
from brats_tf.models import albunet, decoder2d, interslice, resnet34
from brats_tf.training import loop, ready_network

SLOWEST_FIRST = ("integration", "training", "experiments", "inference", "models")  # Both then end together.
register()


def pytest_collection_modifyitems(items):
    """Puts the folders that take longest first."""

    def rank(item):
        folders = [name for name in SLOWEST_FIRST if f"/tests/{name}/" in str(item.path)]
        return SLOWEST_FIRST.index(folders[0]) if folders else len(SLOWEST_FIRST)

    items.sort(key=rank)


# Whose networks may have any widths; elsewhere sizes or golden outputs are pinned.
NARROW = {
    "test_albunet_table1",
    "test_backbones",
    "test_label_map",
    "test_imagenet_weights",
    "test_overfit_one_case",
    "test_paper_figures",
    "test_patch_networks",
    "test_precision",
    "test_predict",
    "test_program",
    "test_real_cases",
    "test_runtimes_networks",
    "test_saved_model",
    "test_scanner_to_slices",
    "test_train",
}


@pytest.fixture(scope="module", autouse=True)
def narrow(request):
    """Convolutions of 8 or 16 filters in `NARROW` modules: a third of the time, a hundredth of the checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ in NARROW:
            patch.setattr(interslice, "FILTERS", (8, 8, 8, 8))
            patch.setattr(decoder2d, "FILTERS", dict.fromkeys(decoder2d.FILTERS, 16))
            patch.setattr(decoder2d, "FULL_SIZE_FILTERS", 8)
            patch.setattr(resnet34, "STAGES", dict.fromkeys(resnet34.STAGES, (1, 8)))
            patch.setattr(resnet34, "STEM_FILTERS", 8)
            patch.setattr(albunet, "CENTRE", 8)
            patch.setattr(albunet, "DECODER", {name: (8, 8, scale) for name, (*_, scale) in albunet.DECODER.items()})
        yield


@pytest.fixture(scope="module", autouse=True)
def memory_returned():
    """What a module has traced is gone before the next one; looking for it is slow, so only where it is worth it."""
    before = resident_gb()
    with free_graphs():
        yield
    if resident_gb() > before + 0.2:
        gc.collect()


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """Four phantoms of 40x40x26 voxels; the last has no enhancing tumour."""
    folder = tmp_path_factory.mktemp("phantoms")
    names = [f"Phantom_{number:03}" for number in range(1, 5)]
    list(write_phantoms(folder, names=names, spacing_mm=TINY_SPACING_MM))
    return folder


@pytest.fixture(scope="session")
def phantoms(phantom_folder):
    """The cases of `phantom_folder`."""
    return find_cases(phantom_folder)[0]


@pytest.fixture(scope="session")
def others(phantom_folder, tmp_path_factory):
    """The folder of the phantoms under other names, to train on."""
    folder = tmp_path_factory.mktemp("others")
    for path in phantom_folder.glob("*/*"):
        target = folder / path.relative_to(phantom_folder).as_posix().replace("Phantom", "Other")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return folder


@pytest.fixture
def damaged(phantoms, tmp_path):
    """Two bad cases: one without FLAIR, one whose FLAIR is truncated."""
    for name in ("no_flair", "truncated"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        for path in phantoms[0].folder.iterdir():
            part = path.name.rpartition("_")[2]
            (tmp_path / "bad" / name / f"{name}_{part}").write_bytes(path.read_bytes())
    (tmp_path / "bad" / "no_flair" / "no_flair_flair.nii.gz").unlink()
    flair = tmp_path / "bad" / "truncated" / "truncated_flair.nii.gz"
    flair.write_bytes(flair.read_bytes()[:-200])
    return find_cases(tmp_path / "bad")[0]


@pytest.fixture
def untraced(monkeypatch):
    """Training steps run operation by operation, without the ten seconds that TensorFlow takes to trace a network."""
    compile_network = loop.compile_network

    def compile_untraced(network, *others):
        compile_network(network, *others)
        network.run_eagerly = True

    def eager(config, network):
        return lambda weights, volumes: network(keras.ops.convert_to_tensor(volumes), training=False).numpy(), None

    monkeypatch.setattr(loop, "compile_network", compile_untraced)
    monkeypatch.setattr(ready_network, "between_steps", eager)


@pytest.fixture(scope="module")
def trainings():
    """Runs `brats-tf` in processes that can be killed, with networks of two convolutions."""
    running = Trainings()
    yield running
    running.close()


@pytest.fixture
def small():
    """The network `embedding` is one of two convolutions, which trains in no time."""
    with networks_of_two_convolutions():
        yield


def _beside(variable, default):
    folder = Path(os.environ.get(variable, REPOSITORY / default))
    if not folder.is_dir():
        pytest.skip(f"needs real data: {folder} is not there (set {variable})")
    return folder


@pytest.fixture(scope="session")
def real_data():
    """The folder with real BraTS cases: native/, uint8/, odd/."""
    return _beside("BRATS_TF_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def real_weights():
    """The folder with real ImageNet weights."""
    return _beside("BRATS_TF_WEIGHTS", "../shared/weights")
