"""Settings of a single command that are not part of a run's `Config`: how it is carried out, and what it writes."""

from dataclasses import dataclass

from brats_tf.config.fields import setting
from brats_tf.config.settings import Section
from brats_tf.regions import CONVENTIONS


@dataclass(frozen=True)
class TrainingOptions(Section):
    """How a training is carried out.

    None of it changes the numbers but `minutes`, which settles the epochs, `skip_invalid`, and `devices`: several sum
    in another order, and fill up a last batch that is smaller than the others.
    """

    workers: int | None = setting(None, "cases to preprocess at once", none="one per CPU core", minimum=1)
    skip_invalid: bool = setting(False, "exclude invalid cases instead of stopping")
    devices: int = setting(1, "GPUs of this machine that share each batch", minimum=1)
    name: str | None = setting(None, "first part of the name of the run's folder", none="preset and fold")
    restart: bool = setting(False, "train from scratch; an existing run is renamed, not deleted")
    minutes: float | None = setting(
        None,
        "end within about so many minutes, all networks together: a few steps are measured, and the epochs chosen to "
        "fit, so that a cosine schedule ends with them; a resumed run keeps its epochs",
        none="no limit; `epochs` decides",
        above=0,
        unit="min",
    )
    checkpoint_minutes: float = setting(10.0, "minutes between checkpoints within an epoch", minimum=0, unit="min")


@dataclass(frozen=True)
class EngineOptions(Section):
    """Where the work on cases is done; it changes nothing of what comes out."""

    engine: str = setting(
        "local", "local: threads of this process; ray: processes of a Ray cluster", choices=("local", "ray")
    )
    address: str | None = setting(
        None, "with --engine ray, of a running cluster; auto: the one of this machine", none="a cluster of this command"
    )


@dataclass(frozen=True)
class PredictionEngine(EngineOptions):
    """Where cases are predicted; it changes nothing of what comes out."""

    workers: int | None = setting(
        None,
        "with --engine ray, processes that hold the networks; each has its share of the cores",
        none="one per GPU, or one per machine that has none",
        minimum=1,
    )


@dataclass(frozen=True)
class ForwardOptions(Section):
    """How trained networks run: both settings change the probabilities, so that some voxels get other labels."""

    precision: str = setting(
        "float32",
        "number format of the layers; auto: bfloat16 where the processor or the GPU computes in it",
        choices=("float32", "bfloat16", "auto"),
    )
    mirror: str = setting(
        "none",
        "also predict mirrored volumes and average: left-right takes twice as long, along all axes eight times",
        choices=("none", "lr", "all"),
    )


@dataclass(frozen=True)
class PostProcessing(Section):
    """Steps after the networks, in this order; neither paper post-processes, so the defaults do nothing."""

    remove_below_ml: float = setting(
        0.0,
        "remove connected components of the tumour (26 neighbours) below this volume",
        minimum=0,
        maximum=1e4,
        unit="ml",
    )
    fill_holes: bool = setting(False, "turn background that the tumour encloses (6 neighbours) into edema")
    drop_et_below_ml: float = setting(
        0.0,
        "relabel the enhancing tumour as necrosis where its total volume is below this",
        minimum=0,
        maximum=1e4,
        unit="ml",
    )

    def __bool__(self) -> bool:
        return self != PostProcessing()


@dataclass(frozen=True)
class PredictionOptions(Section):
    """What is written; files beside the label maps are (X, Y, Z, 3) float32 for WT, TC and ET."""

    save_probabilities: bool = setting(False, "also write OUT/probabilities/<case>.nii.gz: the averages of WT, TC, ET")
    save_uncertainty: bool = setting(
        False, "also write OUT/uncertainty/<case>.nii.gz: the networks' standard deviation, 0 to 0.5"
    )
    replace: bool = setting(False, "replace predictions of other networks or with other post-processing that OUT holds")
    resume: bool = setting(False, "leave out cases that OUT holds of the same networks, post-processing and images")


@dataclass(frozen=True)
class ExportOptions(Section):
    """What is written; a label map is in a SavedModel alone."""

    format: str = setting("savedmodel", "what the networks are written as", choices=("savedmodel", "onnx", "litert"))
    weight_type: str = setting(
        "float32", "number format of the weights in an ONNX or LiteRT file", choices=("float32", "float16")
    )
    convention: str = setting(
        "brats2017", "numbers of the labels; brats2017: 1, 2, 4, as files of 2017 to 2021", choices=tuple(CONVENTIONS)
    )
    serving: bool = setting(False, "also write what configures TensorFlow Serving (SavedModel) or Triton (ONNX)")
    results: str | None = setting(None, "folder that evaluate wrote, for the scores on the card", none="no scores")


@dataclass(frozen=True)
class ServeOptions(Section):
    """How a server listens, and what it takes."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0: every network of this machine")
    port: int = setting(8000, "port to listen on", minimum=1, maximum=65535)
    queue: int = setting(
        16, "cases that may be waiting or in prediction at a time; more are told to come again", minimum=1
    )
    upload_mb: float = setting(256.0, "the largest case, all its files together", above=0, unit="mb")
    upload_seconds: float = setting(300.0, "the longest that sending a case may take", above=0, unit="s")
    convention: str = setting("brats2017", "numbers of the labels", choices=tuple(CONVENTIONS))


@dataclass(frozen=True)
class EvaluationOptions(Section):
    """How label maps are scored."""

    empty_masks: str = setting(
        "brats", "scores of a region without voxels: as on the BraTS platform, or none", choices=("brats", "nan")
    )
    workers: int | None = setting(None, "cases to score at once", none="one per CPU core", minimum=1)
    blind_classifier: bool = setting(
        False, "also predict with each plane replaced by its mean, and compare: what does the classifier contribute?"
    )


@dataclass(frozen=True)
class ReportOptions(Section):
    """What the report shows."""

    viewer_cases: int = setting(8, "cases to scroll through, from the worst and the best; about 1 MB each", minimum=1)


@dataclass(frozen=True)
class ConformOptions(Section):
    """How a patient's series become a case."""

    brain_mask: str = setting(
        "auto",
        "where the brain mask comes from; auto: brain_mask.nii.gz in the patient's folder, else HD-BET or SynthStrip; "
        "nonzero: the images show a brain alone",
        choices=("auto", "file", "hd-bet", "synthstrip", "nonzero"),
    )
    registration: str = setting("rigid", "registration of the other series to the reference", choices=("rigid", "none"))
    n4: bool = setting(False, "correct each series for the bias field (N4) first")


@dataclass(frozen=True)
class RestoreOptions(Section):
    """Which spaces label maps are brought back to, and as what."""

    to: str = setting(
        "reference",
        "the series whose space it is; reference: what the others were registered to, native: each of them",
        choices=("reference", "flair", "t1", "t1ce", "t2", "native"),
    )
    dicom_seg: bool = setting(True, "also write a DICOM SEG where the series is DICOM")
