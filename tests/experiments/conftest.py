import shutil

import pytest


@pytest.fixture(scope="session")
def others(phantom_folder, tmp_path_factory):
    """The folder of the phantoms under other names, to train on."""
    folder = tmp_path_factory.mktemp("others")
    for path in phantom_folder.glob("*/*"):
        target = folder / path.relative_to(phantom_folder).as_posix().replace("Phantom", "Other")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return folder
