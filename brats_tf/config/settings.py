"""The settings of a run, section by section. This is their only home: see `fields`.

`Config` puts the sections together; `presets` has the values of both papers.
"""

from dataclasses import dataclass
from typing import ClassVar

from brats_tf.config.fields import Names, Size, check_section, setting, with_tuples
from brats_tf.regions import MODALITIES

CROP: Size = (192, 160, 108)  # H front-back, W left-right, D head-foot, in voxels (embedding paper, Section 2.1).
SEED_LIMIT = 2**32 - 1  # NumPy takes no larger seed.


@dataclass(frozen=True)
class Section:
    """A group of settings; values are checked when it is made."""

    def __post_init__(self) -> None:
        with_tuples(self)
        check_section(self)


@dataclass(frozen=True)
class DataSettings(Section):
    """What the network sees, and which cases it learns from."""

    modalities: Names = setting(help="the modalities that the network sees, stacked as channels", choices=MODALITIES)
    crop: Size = setting(
        CROP,
        "image-centred crop, front-back x left-right x head-foot",
        unit="voxels",
        source="embedding paper, Section 2.1",
    )
    patch_size: Size | None = setting(
        None,
        "size of the random patches to train on and of the windows to predict in",
        none="whole crops",
        unit="voxels",
        source="AlbuNet paper, Section 2.3",
    )
    foreground_fraction: float = setting(
        0.0,
        "fraction of patches centred on a tumour voxel; the others are drawn from the brain",
        minimum=0,
        maximum=1,
        source="AlbuNet paper, Section 2.3",
    )
    spacing_mm: float | None = setting(
        None,
        "edge of the cubic voxels to resample every volume to",
        none="no resampling",
        minimum=0.1,
        maximum=10,
        unit="mm",
    )
    augmentation: str = setting(
        "none",
        "augmentation preset of the training cases",
        choices=("none", "albunet", "albunet-authors", "nnunet-like"),
        source="the embedding paper names none; AlbuNet paper, Section 2.4",
    )
    modality_dropout: float = setting(
        0.0,
        "probability that one modality of a training case is 0; the network then also predicts cases that lack one",
        minimum=0,
        maximum=1,
    )
    validation_split: float | None = setting(
        None, "fraction of the patients to keep from training and to validate on", none="train on all patients", above=0
    )
    folds: int | None = setting(None, "number of folds of a cross-validation", none="no folds", minimum=2)
    fold: int | None = setting(
        None, "the fold to keep from training and to validate on, counted from 0", none="no folds", minimum=0
    )
    split_seed: int = setting(0, "seed that divides the patients, whatever --seed is", minimum=0, maximum=SEED_LIMIT)


@dataclass(frozen=True)
class ClassifierSettings(Section):
    """A 2D ImageNet classifier inside a 3D network."""

    backbone: str = setting(
        "efficientnetb0", "the embedded 2D classifier (see `brats-tf backbones`)", source="embedding paper, Section 2.1"
    )
    weights: str = setting(
        "imagenet", "initial weights of the classifier: imagenet, noisy-student, a file, or none for random weights"
    )
    input_scaling: str = setting(
        "standardise",
        "scaling in front of the classifier: standardise gives each plane the mean and deviation that its weights "
        "expect (mostly 0 and 1), none takes the planes as they are, imagenet takes them as an image of 0 to 255",
        choices=("standardise", "none", "imagenet"),
    )
    batch_norm: str = setting(
        "frozen",
        "the classifier's batch normalisation in training: fixed statistics, or those of the batch",
        choices=("frozen", "batch"),
    )
    stochastic_depth: bool = setting(
        False,
        "drop residual branches of the classifier in training, as on ImageNet, where Keras's has any (EfficientNet)",
        source="the embedding paper names none; the authors' code does",
    )
    classifier_rate: float = setting(
        1.0,
        "the classifier's learning rate as a fraction of the network's; 0 keeps its weights as they are",
        minimum=0,
        maximum=1,
    )

    @property
    def encoder(self) -> str:
        """The ImageNet network inside."""
        return self.backbone


@dataclass(frozen=True)
class EmbeddingSettings(ClassifierSettings):
    """The embedding networks: a 2D classifier between an inter-slice encoder and decoder."""

    paper: ClassVar[str] = "embedding"

    name: str = setting("embedding", "builder of the network", choices=("embedding", "embedding_authors"))
    planes: int = setting(
        3, "planes that the encoder leaves for the classifier", minimum=1, source="embedding paper, Table 1"
    )
    depth_factors: Size | None = setting(
        None,
        "depth reduction of the three encoder levels",
        none="derived from the depth; 3x3x4 for 108",
        source="embedding paper, Section 2.2",
    )


@dataclass(frozen=True)
class PlusSettings(ClassifierSettings):
    """`embedding-plus`: the classifier sees one image for each slab of slices."""

    paper: ClassVar[str] = "embedding"  # Whose published results stand beside its own.

    name: str = setting("embedding_plus", "builder of the network", choices=("embedding_plus",))
    slab: int = setting(4, "slices that one image of the classifier stands for", minimum=1, maximum=16)


@dataclass(frozen=True)
class AlbuNetSettings(Section):
    """The AlbuNet paper's network: a U-Net around an ImageNet ResNet34."""

    paper: ClassVar[str] = "albunet"
    encoder: ClassVar[str] = "resnet34"

    name: str = setting("albunet", "builder of the network", choices=("albunet",))
    weights: str = setting("imagenet", "initial weights of the encoder: imagenet, a file, or none for random weights")
    depth_layers: bool = setting(
        True, "1x1x3 convolutions through which slices see their neighbours", source="AlbuNet paper, Section 2.1"
    )


@dataclass(frozen=True)
class TrainingSettings(Section):
    """Loss, optimiser, learning rate and length of a training."""

    start_from: str | None = setting(None, "trained run to start from, or folder of such", none="`weights`", path=True)
    epochs: int = setting(200, "passes over the training cases", minimum=1, source="no figure in the embedding paper")
    batch_size: int = setting(1, "crops or patches per step", minimum=1, source="embedding paper, Section 2.1")
    steps_per_epoch: int | None = setting(None, "steps per epoch", none="as many as the cases make", minimum=1)
    gradient_accumulation_steps: int = setting(
        1, "parts that a batch is split into to save memory; the gradients are averaged", minimum=1
    )
    loss: str = setting(
        "ce_minus_dice",
        "loss function",
        choices=("ce_minus_dice", "multiple_dice", "multiple_dice_background"),
        source="embedding paper, Section 2.4; AlbuNet paper, Section 2.2",
    )
    optimizer: str = setting(
        "adam", "optimiser", choices=("adam", "nadam"), source="embedding paper, Section 2.5; its authors' code"
    )
    learning_rate: float = setting(1e-4, "initial learning rate", above=0, source="embedding paper, Section 2.5")
    schedule: str = setting(
        "plateau", "learning-rate schedule; cosine ends at 0", choices=("plateau", "cosine", "constant")
    )
    plateau_patience: int = setting(
        50,
        "epochs without improvement after which the plateau schedule divides the rate by 10",
        minimum=1,
        source="embedding paper, Section 2.5",
    )
    plateau_monitor: str = setting(
        "loss",
        "what the plateau schedule watches: the training loss, or the Dice of the validation",
        choices=("loss", "validation"),
    )
    warmup_epochs: int = setting(
        0, "epochs in which the rate of the cosine or constant schedule rises from 0", minimum=0
    )
    weight_averaging: str = setting(
        "none",
        "weights to save: those of the last step, or their exponential moving average, with the batch norm statistics "
        "of the last step",
        choices=("none", "ema"),
    )
    validation_frequency: int | None = setting(
        None, "epochs between validations", none="on the command line 5 where cases validate, else never", minimum=1
    )


@dataclass(frozen=True)
class InferenceSettings(Section):
    """How windows are placed and averaged, for networks that see patches."""

    window_stride: Size | None = setting(
        None,
        "distance between neighbouring windows",
        none="half a patch",
        unit="voxels",
        source="AlbuNet paper, Section 2.5",
    )
    window_weighting: str = setting(
        "uniform", "weight of the voxels of a window where windows overlap", choices=("uniform", "gaussian")
    )
    window_average: str = setting(
        "probabilities",
        "what is averaged where windows overlap",
        choices=("probabilities", "logits"),
        source="AlbuNet paper's authors' code: logits",
    )


@dataclass(frozen=True)
class ComputeSettings(Section):
    """How the numbers of a training are computed; weights, losses and normalisation are float32 in any case."""

    precision: str = setting(
        "float32",
        "number format of the layers; auto: bfloat16 where the processor or the GPU computes in it",
        choices=("float32", "bfloat16", "float16", "auto"),
    )
    rematerialise: bool = setting(False, "recompute blocks and classifier in the backward pass, to save memory")
    jit: bool = setting(False, "compile the step with XLA (experimental; several times slower on a CPU)")

    @property
    def keep(self) -> str:
        """What a training step keeps of its forward pass, as `models.remat` calls it."""
        return "block" if self.rematerialise else "step"
