"""The settings of a run by concern: a dataclass each, whose fields are flags of the command line and keys in YAML.

The flag names are those that users of this field know by heart (`-b/--batch-size`, `--num-instances`, `--eps`, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ise_fast.methods import LABELS, METHODS, flag


@dataclass(frozen=True)
class DataConfig:
    """Images: where they are, how they are decoded, cached and augmented."""

    dataset: str = flag("synthetic", "market1501, msmt17, personx, veri776, folder, omniglot or synthetic", "-d")
    data_dir: str | None = flag(None, "folder that holds the data set (synthetic: where to write it)", path=True)
    height: int | None = flag(None, "image height; default: the data set's own")
    width: int | None = flag(None, "image width; default: the data set's own")
    workers: int = flag(2, "threads that decode images into the cache", "-j")
    cache: Literal["auto", "memory", "disk"] = flag(
        "auto", "decoded images: in memory, or in a memory-mapped file (auto: with several processes)"
    )
    cache_dir: str | None = flag(None, "folder of the memory-mapped files; default: ~/.cache/ise_fast", path=True)
    unreadable: Literal["error", "skip"] = flag("error", "an image that cannot be decoded: stop, or skip and count")
    identity_pattern: str | None = flag(None, "folder data set: regular expression with groups id and camera")
    labels_csv: str | None = flag(None, "folder data set: CSV file with columns path, id, camera, split", path=True)
    view_share: float = flag(
        0.5, "probability that a training image is replaced by a further view of it (column view_of of --labels-csv)"
    )
    flip: float = flag(0.5, "probability of a horizontal flip")
    padding: int = flag(10, "pixels padded on every side before the random crop; 0: none")
    erase: float = flag(0.5, "probability of random erasing")


@dataclass(frozen=True)
class ModelConfig:
    """The embedding network."""

    arch: str = flag(
        "resnet50", "backbone: small (CPU default), a torchvision name, timm:NAME, or package.module:FUNCTION", "-a"
    )
    pretrained: str = flag("imagenet", "none, imagenet, or the path of a weight file", path=True)
    pooling_type: Literal["avg", "gem"] = flag("avg", "global pooling")
    stem_relu: bool = flag(True, "ReLU between the first BatchNorm and the pooling of a ResNet; CAP's network has none")
    features: int = flag(0, "embedding size; 0: the backbone's own width")
    parts: int = flag(0, "horizontal parts of the image with features of their own; 0: as many as the method needs")
    bn_chunk: int = flag(64, "images that one BatchNorm sees, in sampler order (ghost BatchNorm); 0: the whole batch")


@dataclass(frozen=True)
class PlanConfig:
    """The method, and where its pseudo labels come from."""

    method: str = flag("ise", f"{', '.join(METHODS)}, or package.module:NAME of one's own")
    labels: str | None = flag(None, f"{', '.join(LABELS)}, or package.module:NAME; default: the method's own")
    on_few_clusters: Literal["previous", "stop"] = flag(
        "previous", "fewer clusters than a batch needs: go on with the previous labels, or stop"
    )
    tracklets: Literal["ignore", "merge"] = flag(
        "ignore", "merge: each image gets the most frequent label of its tracklet (column tracklet of --labels-csv)"
    )
    tracklet_epochs: int = flag(0, "first epochs, whose clusters are the tracklets")


@dataclass(frozen=True)
class MixConfig:
    """Mixed batches and smoothed labels, with any method but PPLR, CycAs and, for smoothed labels, MMCL."""

    mix: Literal["none", "mixup", "cutmix", "feature"] = flag(
        "none", "mix images (mixup), boxes of images (cutmix), or features, each pair with the losses of both labels"
    )
    mix_alpha: float = flag(1.0, "share of a mixture: Beta(alpha, alpha)")
    mix_probability: float = flag(0.5, "probability of a batch to be mixed; mixed images do not move the memory")
    label_smoothing: float = flag(0.0, "share of the target that is spread evenly over all classes")


@dataclass(frozen=True)
class OptimConfig:
    """Batches, optimiser, schedule and arithmetic."""

    batch_size: int = flag(256, "images in a batch, over all processes", "-b")
    num_instances: int = flag(16, "images of one cluster in a batch")
    sampler: Literal["published", "balanced"] = flag(
        "published", "images of a cluster: one, then others of other cameras than its own; or all cameras evenly"
    )
    iters: int = flag(400, "iterations in an epoch; 0: one pass over the labelled images")
    epochs: int = flag(70, "epochs")
    optimizer: Literal["adam", "sgd"] = flag("adam", "Adam, or SGD with momentum")
    lr: float = flag(3.5e-4, "learning rate")
    backbone_lr: float = flag(1.0, "share of the learning rate that the backbone gets")
    weight_decay: float = flag(5e-4, "weight decay")
    sgd_momentum: float = flag(0.9, "momentum of SGD")
    nesterov: bool = flag(True, "SGD with Nesterov's momentum")
    reset_optimizer: bool = flag(False, "forget the optimiser's momenta whenever there are new pseudo labels")
    step_size: int = flag(30, "epochs after which the learning rate falls to a tenth, again and again")
    milestones: str | None = flag(
        None, "epochs from which the learning rate is a tenth of what it was, as 20,40; replaces --step-size"
    )
    warmup_epochs: int = flag(0, "epochs over which the learning rate rises to its value; 0: none")
    warmup_start: float = flag(0.01, "share of the learning rate in the first of these epochs")
    clip_grad: float = flag(0.0, "largest gradient norm; 0: no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = flag(
        "fp32", "arithmetic of the network: float32 throughout (see --tf32), or autocast; fp16 scales the loss"
    )
    tf32: bool = flag(False, "let the GPU round float32 convolutions and products of the network to 10 bits (faster)")
    channels_last: bool = flag(False, "channels-last memory format")
    compile: bool = flag(False, "torch.compile the backbone")
    cuda_graph: bool = flag(True, "replay the loss step from a CUDA graph, recorded once an epoch (GPU)")


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives and how it is watched, stopped and resumed."""

    logs_dir: str | None = flag(None, "folder of the run; default: logs/PRESET, numbered when taken", path=True)
    resume: str | None = flag(
        None, "auto (newest checkpoint in the folder of the run) or a checkpoint's path", path=True
    )
    seed: int = flag(1, "seed of every random choice")
    deterministic: bool = flag(False, "refuse operations without a deterministic implementation (GPU)")
    device: str = flag("auto", "auto, cpu, cuda, cuda:N")
    print_freq: int = flag(10, "iterations between updates of the loss in the progress bar")
    eval_step: int = flag(1, "epochs between evaluations; the last epoch is always evaluated; 0: never")
    test_batch_size: int = flag(256, "images in a batch of feature extraction, per process")
    checkpoint_step: int = flag(0, "also save every this many iterations inside an epoch; 0: at the end of epochs only")
    keep_checkpoints: int = flag(2, "newest checkpoints kept besides the best")
    tensorboard: bool = flag(True, "write TensorBoard event files")
    report: bool = flag(True, "write report.html at the end")
    progress: bool = flag(True, "progress bars, on a terminal or in a notebook")
    quiet: bool = flag(False, "no bars, and on the console warnings and errors alone; train.log has every line")

    @property
    def bars(self) -> bool:
        return self.progress and not self.quiet
