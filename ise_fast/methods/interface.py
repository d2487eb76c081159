"""What a method is made of: labeller, memory, objective; and the entries of the registry.

Base classes with defaults, not protocols: a method of one's own then says only what is special about it. Whatever has
state is a labeller or a memory, and both are in the checkpoint; an objective has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from ise_fast.methods.records import Batch, LossOutput, Need, PseudoLabels
from ise_fast.sharded import HeldRows

T = TypeVar("T")
MemoryT = TypeVar("MemoryT", bound="Memory")


def flag(default: T, text: str, short: str | None = None, *, path: bool = False) -> T:
    """A dataclass field with the help text and short flag of its command-line option; a path may start with ~."""
    return field(default=default, metadata={"help": text, "short": short, "path": path})


class Labeller:
    """Makes the pseudo labels at the start of an epoch, on the first process."""

    figures: tuple[str, ...] = ()
    """Names of the numbers in `PseudoLabels.figures`, for the epoch's line."""
    reads_features: bool = True
    """Without, none are extracted and it gets a row of zeros for each image."""

    grows: bool = True
    """Whether images may be added when a run is resumed: not where the state knows each image by its place."""

    def know(self, cams: Tensor | None, frames: Tensor | None) -> None:
        """What is known of the training images beside pixels: before any is decoded, and again of those that were.

        Args:
            cams: [N] int64 cameras, or None.
            frames: [N] int64 frames of the cameras' videos by time, -1 for an unknown one, or None.

        Raises:
            ValueError: naming the flag, if there can be no labels.
        """

    def due(self, epoch: int) -> bool:
        """Whether there are new labels at the start of this epoch; else labels and memory of the one before go on."""
        return True

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        """Labels of all training images.

        Args:
            features: [N, d] float32 unit rows.
            cams: [N] int64 cameras, or None.
            epoch: from 0. All that is random must come from the seed and this number.

        Raises:
            NoLabels: nothing was found; the run goes on with the labels of the epoch before, or stops.
        """
        raise NotImplementedError

    @property
    def shares(self) -> bool:
        """Whether `shared` is there: processes then keep their features to themselves, if the memory allows."""
        return False

    def shared(self, features: HeldRows, epoch: int) -> PseudoLabels:
        """As a call, by all processes together, none of which has all features: the same labels, on all of them."""
        raise NotImplementedError

    def advice(self, features: Tensor) -> str:
        """What to tell the user where there were too few clusters."""
        return "look at these images, lower --lr or start from other weights"

    def check(self, images: int) -> None:
        """Refuse settings that this many images make impossible, before any is decoded.

        Raises:
            ValueError: naming the flag, what was expected and what came.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that the labels of later epochs depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo everything since `state_dict`."""


class Memory(nn.Module):
    """What the objective contrasts with. Its buffers are in the checkpoint; every process holds the same."""

    @property
    def capture_obstacle(self) -> str | None:
        """As `Objective.capture_obstacle`, for `follow`; its buffers must then keep their place until `begin`."""
        return "its memory does not say that it can be recorded"

    @property
    def reads_features(self) -> bool:
        """Whether `begin` needs the features of all images; without, it may get those of this process alone."""
        return True

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        """An epoch starts.

        Args:
            features: [N, d] float32 unit rows, those that the labels were made of.
            pseudo: the labels, on the CPU.
            cams: [N] int64 on the device of the features, or None.
        """
        raise NotImplementedError

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        """Move towards a batch, after its loss.

        Args:
            features: [B, d] float32 unit rows without gradient.
            batch: their images and labels.
            output: of the objective.
        """
        raise NotImplementedError

    @property
    def classes(self) -> Tensor:
        """[K, d] rows that the loss compares features with."""
        raise NotImplementedError

    @property
    def rows(self) -> Tensor | None:
        """[N, d] unit rows, one an image, that the next labels are made of; None: features are extracted for them.

        A memory that gives rows outlives the epoch: it is then in every checkpoint.
        """
        return None


class Objective(Generic[MemoryT]):
    """The loss of a batch."""

    parts: tuple[str, ...] = ()
    """Names of `LossOutput.parts`: columns of the loss log beside the loss itself."""
    figures: tuple[str, ...] = ()
    """Names of the numbers in `figures_at`."""
    temperature: float | None = None
    """Of the softmax over `Memory.classes`; None: there is none, and labels cannot be smoothed."""
    mixes: bool = True
    """Whether the loss of an image may be computed with the label of another one, as for mixed images."""
    need: Need | None = None
    """Clusters without which the loss cannot be computed."""
    capture_obstacle: str | None = "its loss does not say that it can be recorded"
    """Why a step cannot be recorded in a CUDA graph; None: it can. A recorded step hands nothing back to the host, and
    takes all that changes within an epoch from the tensors of the batch, `Batch.drawn` among them."""

    def __call__(self, features: Tensor, batch: Batch, memory: MemoryT, progress: float) -> LossOutput:
        """The loss.

        Args:
            features: [B, d] float32 unit rows of the whole batch, with gradient.
            batch: their images and labels.
            memory: of the method.
            progress: t / T in [0, 1): iterations done, of all of the run.
        """
        raise NotImplementedError

    def drawn(self, features: Tensor, batch: Batch, progress: float) -> tuple[Tensor, ...]:
        """Tensors on the CPU, of the same shapes in every step: what a loss makes of `progress` and `batch.seed`.

        A recorded step finds them on the device, in `Batch.drawn`; elsewhere that is empty, and the loss makes them.
        Of the features only the shape counts.
        """
        return ()

    def targets(self, batch: Batch, memory: MemoryT) -> tuple[Tensor, Tensor] | None:
        """Rows of `Memory.classes` [B, s] and what each counts [B, s], 1 in sum, if the loss is just their softmax.

        The softmax is over all classes at `temperature`. A mixed or smoothed batch then has other targets in one loss,
        where it else has a loss for each kind of them. None: the loss is more than that.
        """
        return None

    def figures_at(self, progress: float) -> dict[str, float]:
        """Numbers for the epoch's record that follow from the progress of training at its last iteration."""
        return {}

    def check(self, images: int) -> None:
        """As `Labeller.check`."""


@dataclass(frozen=True)
class LabelSource:
    """A way to pseudo labels: an entry of LABELS."""

    settings: type  # a frozen dataclass of `flag` fields
    make: Callable[[Any, int], Labeller]  # from the settings and the run's seed


@dataclass(frozen=True)
class Method:
    """A way to train: an entry of METHODS."""

    title: str
    source: str  # the publication
    settings: type  # a frozen dataclass of `flag` fields; a name that others have too is the same flag
    memory: Callable[[Any, int], Memory]  # from the settings and the width of a feature
    objective: Callable[[Any], Objective[Any]]  # from the settings
    labels: str = "dbscan"  # where its labels come from unless --labels says otherwise
    fixed_labels: bool = False  # --labels cannot say otherwise
    # K images of each cluster; K, and one of an image that is alone; images in random order; or two clusters (frames)
    # of a group, K images of each at most
    sampler: Literal["pk", "pk-singles", "shuffle", "frame-pairs"] = "pk"
    # What batches are balanced over in place of labels, from labels [N] and cameras [N] or None on the CPU
    groups: Callable[[Tensor, Tensor | None], Tensor] | None = None
    needs_cameras: bool = False
    needs_frames: bool = False
    parts: int = 0  # horizontal parts whose features it needs (`PseudoLabels`, `Batch`), unless --parts says otherwise
