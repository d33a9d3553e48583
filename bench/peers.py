"""The same augmentations by batchgenerators and MONAI, for `python -m bench`; both are optional (extra `bench`).

Every function takes a volume (1, H, W, D) and labels (1, H, W, D), NumPy arrays, and leaves them as they are: each
library is measured from a crop to a new crop. Strengths are those of `augmentation.OPERATIONS`; what a library
draws at random is drawn from a range of one value.
"""

from unittest import mock

import numpy as np


def batchgenerators():
    """{operation: function}, or {} where the package is not installed."""
    try:
        from batchgenerators.augmentations import color_augmentations as colour
        from batchgenerators.augmentations import noise_augmentations as noise
        from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy
        from batchgenerators.augmentations.spatial_transformations import augment_mirroring, augment_spatial_2
    except ImportError:
        return {}

    def spatial(volume, labels, **changes):
        settings = {
            "patch_size": volume.shape[1:],
            "do_elastic_deform": False,
            "do_rotation": False,
            "do_scale": False,
            "border_mode_data": "constant",
            "border_mode_seg": "constant",
            "border_cval_seg": 0,
            "order_data": 1,
            "order_seg": 0,
            "random_crop": False,
        } | changes
        return augment_spatial_2(volume[None], labels[None].astype(np.float32), **settings)

    def mirror(volume, labels):
        with mock.patch("numpy.random.uniform", return_value=0.0):  # Every axis.
            return augment_mirroring(volume.copy(), labels.copy())

    angles = {f"angle_{axis}": (np.deg2rad(10), np.deg2rad(10)) for axis in "xyz"}
    elastic = {"do_elastic_deform": True, "deformation_scale": (0.1, 0.1), "p_el_per_sample": 1}
    return {
        "mirror": mirror,
        "rotation": lambda v, s: spatial(v, s, do_rotation=True, p_rot_per_sample=1, **angles),
        "scale": lambda v, s: spatial(v, s, do_scale=True, scale=(1.2, 1.2), p_scale_per_sample=1),
        "elastic": lambda v, s: spatial(v, s, **elastic),
        "noise": lambda v, s: noise.augment_gaussian_noise(v.copy(), noise_variance=(0.1, 0.1)),
        "blur": lambda v, s: noise.augment_gaussian_blur(v.copy(), sigma_range=(1, 1)),
        "brightness": lambda v, s: colour.augment_brightness_multiplicative(v.copy(), multiplier_range=(1.2, 1.2)),
        "contrast": lambda v, s: colour.augment_contrast(v.copy(), contrast_range=(1.2, 1.2)),
        "low_resolution": lambda v, s: augment_linear_downsampling_scipy(
            v.copy(), zoom_range=(0.6, 0.6), order_upsample=1
        ),
        "gamma": lambda v, s: colour.augment_gamma(v.copy(), gamma_range=(0.7, 0.7), retain_stats=True),
        "inverted_gamma": lambda v, s: colour.augment_gamma(
            v.copy(), gamma_range=(0.7, 0.7), retain_stats=True, invert_image=True
        ),
    }


def monai():
    """{operation: function}, or {} where the package is not installed."""
    try:
        import torch
        from monai import transforms
    except ImportError:
        return {}

    def both(settings):
        """An affine transform of volume and labels."""
        common = {"padding_mode": "zeros", "image_only": True}
        linear = transforms.Affine(**settings, mode="bilinear", **common)
        nearest = transforms.Affine(**settings, mode="nearest", **common)
        return lambda v, s: (linear(v), nearest(s))

    deform = transforms.Rand3DElastic(
        # The same bumps: sigma a tenth of the longest axis, shifts of some voxels.
        sigma_range=(19, 19),
        magnitude_range=(1000, 1000),
        prob=1.0,
        padding_mode="zeros",
    )

    def elastic(volume, labels):
        deform.set_random_state(0)
        moved = deform(volume, mode="bilinear")
        deform.set_random_state(0)
        return moved, deform(labels, mode="nearest")

    flip = transforms.Flip(spatial_axis=(0, 1, 2))
    alone = {
        "noise": transforms.RandGaussianNoise(prob=1.0, std=0.1, sample_std=False),
        "blur": transforms.GaussianSmooth(sigma=1.0),
        "brightness": transforms.ScaleIntensity(minv=None, maxv=None, factor=0.2),
        "low_resolution": transforms.RandSimulateLowResolution(prob=1.0, zoom_range=(0.6, 0.6)),
        "gamma": transforms.AdjustContrast(0.7, retain_stats=True),
        "inverted_gamma": transforms.AdjustContrast(0.7, retain_stats=True, invert_image=True),
        "bias_field": transforms.RandBiasField(prob=1.0, degree=3, coeff_range=(-0.3, 0.3)),
    }
    found = {
        "mirror": lambda v, s: (flip(v), flip(s)),
        "rotation": both({"rotate_params": [np.deg2rad(10)] * 3}),
        "scale": both({"scale_params": [1.2] * 3}),
        "elastic": elastic,
    } | {name: lambda v, s, change=change: change(v) for name, change in alone.items()}
    tensors = lambda *arrays: map(torch.from_numpy, arrays)  # noqa: E731 (as its users' pipelines have them)
    return {name: lambda v, s, change=change: change(*tensors(v, s)) for name, change in found.items()}
