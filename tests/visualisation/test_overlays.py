import matplotlib.image
import numpy as np
from matplotlib.colors import to_rgb

from brats_tf.visualisation import overlays
from brats_tf.visualisation.overlays import (
    COLOUR_BLIND_SAFE,
    COLOURS,
    ERROR_COLOURS,
    OPACITY,
    _slices,
    blend,
    centre_of_tumour,
    errors_of,
    save_overlay,
    with_dark_background,
)
from brats_tf.visualisation.plots import save_bands, save_boxes, save_curves, save_planes, save_scatter


def test_colours_are_those_of_figure_2():
    blended = blend(np.zeros((1, 4)), np.array([[0, 1, 2, 3]]))
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
    save_overlay(
        tmp_path / "errors.png",
        classes * 1.0,
        {"truth": classes, "prediction": classes[::-1]},
        title="x",
        errors=True,
    )
    save_planes(
        tmp_path / "planes.png", {"slice": list(classes[:3]), "labels": [blend(classes[0], classes[0])]}, title="x"
    )
    save_scatter(tmp_path / "scatter.png", {"WT": ([1, 2], [3, 4])}, title="x", x_label="a", y_label="b")
    save_boxes(tmp_path / "boxes.png", {"one": [1, 2, 3], "two": [2], "none": []}, title="x", y_label="y")
    curve = {"WT": {"epochs": [1, 2], "mean": [0.1, 0.2], "std": [0, 0.1]}}
    save_bands(tmp_path / "bands.png", {"AlbuNet3D": curve}, panels=("WT",), title="x")
    for name in ("overlay", "curves", "errors", "planes", "scatter", "boxes", "bands"):
        name = f"{name}.png"
        assert matplotlib.image.imread(tmp_path / name).std() > 0.01


def test_voxels_have_their_shape_in_a_picture(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(overlays, "save_figure", lambda figure, path: figures.append(figure))
    classes = np.ones((8, 9, 10), int)
    save_overlay(tmp_path / "x.png", classes * 1.0, {"truth": classes}, title="x", edges_mm=(1, 2, 6))
    assert [axis.get_aspect() for axis in figures[0].axes] == [1 / 2, 6 / 2, 6 / 1]


def test_the_middle_of_several_lesions_lies_in_one_of_them():
    classes = np.zeros((20, 20, 20), int)
    classes[2:5, 2:5, 2:5] = classes[15:17, 15:17, 15:17] = 1
    assert classes[tuple(centre_of_tumour(classes))] == 1
    classes[...] = 0
    classes[4:9, 5:10, 6:11] = 2
    assert centre_of_tumour(classes) == [6, 7, 8]


def test_the_background_is_dark():
    """After z-scoring it is 0, as the mean of the brain is."""
    volume = np.zeros((4, 4, 4))
    volume[1:3, 1:3, 1:3] = np.linspace(-1, 1, 8).reshape(2, 2, 2)
    assert with_dark_background(volume)[0, 0, 0] == -1


def test_errors_have_a_kind():
    truth, prediction = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 0, 2, 3])
    np.testing.assert_array_equal(errors_of(truth, prediction), [0, 0, 1, 3, 2])
    assert list(ERROR_COLOURS) == ["missed", "false", "wrong class"]


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    classes = np.ones((8, 9, 10), int)
    save_overlay(tmp_path / "overlay.png", classes * 1.0, {"cost$^$": classes}, title="cost$^$")
    save_curves(tmp_path / "curves.png", {"cost$^$": [3, 2, 1]}, title="cost$^$", x_label="step")
    assert {path.name for path in tmp_path.iterdir()} == {"overlay.png", "curves.png"}


def test_a_mask_lies_on_the_slice_that_it_belongs_to():
    volume = np.random.default_rng(0).random((4, 5, 6))
    shown = list(_slices(volume, volume, (2, 3, 5)))
    assert [name for name, _, _ in shown] == ["axial", "coronal", "sagittal"]
    for _, image, mask in shown:
        np.testing.assert_array_equal(image, mask)
    np.testing.assert_array_equal(shown[1][1], volume[2].T[::-1])  # The head on top.
    np.testing.assert_array_equal(shown[2][1], volume[:, 3].T[::-1])


def test_the_row_of_errors_has_missed_and_false_in_their_colours_and_the_first_tumour_chooses_the_slices(monkeypatch):
    figures = []
    monkeypatch.setattr(overlays, "save_figure", lambda figure, path: figures.append(figure))
    truth, prediction = np.zeros((2, 8, 9, 10), np.uint8)
    truth[2:5, 3:6, 4:7] = 1  # Its centre is (3, 4, 5).
    prediction[3, 7, 5] = prediction[7, 7:9, 9] = 3
    save_overlay("x.png", np.zeros(truth.shape), {"truth": truth, "ours": prediction}, title="x", errors=True)
    shown = {axis.get_title(): np.asarray(axis.get_images()[0].get_array()) for axis in figures[0].axes}
    missed, false = (OPACITY * np.array(to_rgb(ERROR_COLOURS[name])) for name in ("missed", "false"))
    np.testing.assert_allclose(shown["error, axial"][3, 4], missed)
    np.testing.assert_allclose(shown["error, axial"][3, 7], false)
    enhancing = OPACITY * np.array(to_rgb(COLOUR_BLIND_SAFE["enhancing"]))
    np.testing.assert_allclose(shown["ours, axial"][3, 7], enhancing)
    save_overlay("x.png", np.zeros(truth.shape), {"truth": truth, "ours": prediction}, title="x")
    shown = {axis.get_title(): np.asarray(axis.get_images()[0].get_array()) for axis in figures[1].axes}
    np.testing.assert_allclose(shown["ours, axial"][3, 7], OPACITY * np.array(to_rgb(COLOURS["enhancing"])))
