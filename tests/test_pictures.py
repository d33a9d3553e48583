import matplotlib.image
import numpy as np

from brats_tf.pictures import OPACITY, _blend, _slices, save_curves, save_overlay


def test_colours_are_those_of_figure_2():
    blended = _blend(np.zeros((1, 4)), np.array([[0, 1, 2, 3]]))
    black, necrosis, edema, enhancing = blended[0]
    np.testing.assert_allclose(black, 0)
    np.testing.assert_allclose(necrosis, [OPACITY, 0, 0])  # red
    np.testing.assert_allclose(edema, [0, OPACITY * 128 / 255, 0], atol=1e-3)  # green
    np.testing.assert_allclose(enhancing, [OPACITY, OPACITY, 0])  # yellow


def test_the_head_is_on_top_and_the_slices_meet_in_the_centre():
    volume = np.zeros((4, 5, 6))
    volume[2, 3, 5] = 1  # At the head.
    slices = {name: image for name, image, _ in _slices(volume, volume, (2, 3, 5))}
    assert slices["axial"].shape == (4, 5)
    assert slices["coronal"].shape == (6, 5)
    assert slices["sagittal"].shape == (6, 4)
    assert slices["axial"][2, 3] == slices["coronal"][0, 3] == slices["sagittal"][0, 2] == 1


def test_pictures_are_written(tmp_path):
    classes = np.random.default_rng(0).integers(0, 4, size=(8, 9, 10))
    save_overlay(tmp_path / "overlay.png", classes * 1.0, {"truth": classes, "none": classes * 0}, title="x")
    save_curves(tmp_path / "curves.png", {"loss": [3, 2, 1]}, title="x", x_label="step")
    for name in ("overlay.png", "curves.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0.01
