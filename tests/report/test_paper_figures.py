"""The embedding paper's figures from a run: the planes are what the named layers give."""

import keras
import matplotlib.image
import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.models.build import build_network
from brats_tf.models.planes import with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.report import paper_figures as figures
from brats_tf.report.paper_figures import draw_figures, pick_case
from brats_tf.visualisation.overlays import with_dark_background


def saved(folder, **settings):
    config = Config.from_preset(**settings, weights="none")
    config.save(folder)
    network = build_network(config)
    network.save_weights(folder / "network.weights.h5")
    return network


@pytest.mark.slow
def test_planes_and_overlay(phantoms, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save_planes", lambda path, rows, **_: drawn.update(rows) or path.touch())
    (tmp_path / "figures").mkdir()
    network = saved(tmp_path, preset="embedding", modalities=("t2",), crop=TINY_CROP, backbone="tiny")
    overlay, planes = draw_figures(tmp_path, phantoms[0])
    assert matplotlib.image.imread(overlay).std() > 0.01
    assert planes.name == f"planes-{phantoms[0].id}.png"
    assert list(drawn) == ["slice", "from the 3D encoder", "into the 3D decoder", "truth", "prediction"]
    assert [len(images) for images in drawn.values()] == [3] * 5
    # What the named layers give of this case.
    volume = prepare_case(phantoms[0], modalities=("t2",), crop=TINY_CROP, with_truth=True)
    names = {"from the 3D encoder": "planes", "into the 3D decoder": "decoded_planes"}
    for caption, name in names.items():
        (given,) = keras.Model(network.inputs[0], network.get_layer(name).output)(volume.volume[np.newaxis])
        assert given.shape == (*TINY_CROP[:2], 3)
        for image in drawn[caption]:
            assert any(np.allclose(image, given[..., plane], atol=1e-5) for plane in range(3))
    shown = with_dark_background(volume.volume[..., 0])
    assert any(np.array_equal(drawn["slice"][1], shown[:, :, d]) for d in range(TINY_CROP[2]))
    assert min(plane.min() for plane in drawn["from the 3D encoder"]) < 0  # The block ends in a sum, not in a ReLU.
    assert drawn["from the 3D encoder"][0].shape == drawn["into the 3D decoder"][0].shape == TINY_CROP[:2]


@pytest.mark.large
def test_planes_without_anything_in_them_are_said(phantoms, tmp_path, capsys):
    network = saved(tmp_path, preset="embedding", modalities=("t2",), crop=TINY_CROP, backbone="tiny")
    draw_figures(tmp_path, phantoms[0])
    assert "sees nothing" not in capsys.readouterr().out
    for name in ("planes_shortcut", "planes_conv2"):
        network.get_layer(name).set_weights([0 * weight for weight in network.get_layer(name).get_weights()])
    network.save_weights(tmp_path / "network.weights.h5")
    draw_figures(tmp_path, phantoms[0])
    assert "the planes are constant, so the 2D classifier sees nothing" in capsys.readouterr().out


def test_networks_of_patches_have_no_planes(phantoms, tmp_path):
    saved(tmp_path, preset="albunet3d", crop=(40, 40, 26), patch_size=(32, 32, 4), window_stride=(16, 16, 4))
    (overlay,) = draw_figures(tmp_path, phantoms[0])
    assert overlay.is_file()


def test_cases_are_picked_by_id_or_by_what_they_have(phantoms):
    assert pick_case(phantoms, phantoms[2].id) is phantoms[2]
    assert pick_case(phantoms, None, parts=("flair",)) is phantoms[0]
    with pytest.raises(InputError, match="`--case` must be one of Phantom_001, .* Received: x"):
        pick_case(phantoms, "x")


@pytest.mark.slow
def test_the_images_of_slabs_are_those_of_the_slices(phantoms, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save_planes", lambda path, rows, **_: drawn.update(rows) or path.touch())
    (tmp_path / "figures").mkdir()
    settings = {"preset": "embedding-plus", "modalities": ("t1", "t2"), "crop": TINY_CROP, "backbone": "tiny"}
    network = saved(tmp_path, **settings)
    draw_figures(tmp_path, phantoms[0])
    assert list(drawn) == ["slice", "image of its slab", "truth", "prediction"]
    prepared = prepare_case(phantoms[0], modalities=("t1", "t2"), crop=TINY_CROP, with_truth=True)
    images = with_planes(network)(prepared.volume[None])[1][0].numpy()
    where = figures._slices(prepared.classes)
    for depth, shown in zip(where, drawn["image of its slab"], strict=True):
        expected = images[:, :, depth // 4]
        low, high = expected.min(axis=(0, 1)), expected.max(axis=(0, 1))
        np.testing.assert_allclose(shown, (expected - low) / (high - low), atol=1e-5)
