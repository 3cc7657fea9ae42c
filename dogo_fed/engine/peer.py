"""One learner: an objective over a backbone, its optimizer, its augmentation, how it is taught."""

# N = images in the step's batch, C, H, W = channels and pixels

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch.func import functional_call

from dogo_fed import seeding
from dogo_fed.contracts import PeerId, SimilarityDistribution
from dogo_fed.data.augment import Augmentation
from dogo_fed.data.roles import StepImages
from dogo_fed.data.to_device import arrays_of, to_device
from dogo_fed.engine.helpers import Helpers
from dogo_fed.engine.learning_rate import LearningRate
from dogo_fed.engine.step_losses import numbers_of
from dogo_fed.errors import TrainingError
from dogo_fed.ledger import Part, part
from dogo_fed.objectives.base import Objective, ObjectiveOutput, ViewPair
from dogo_fed.objectives.mutual import Reduction
from dogo_fed.objectives.similarity import log_similarity_distribution, negative_entropy

logger = logging.getLogger(__name__)

Views: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Two augmented views of the same images, N x C x H x W each."""


Weights: TypeAlias = Mapping[str, torch.Tensor]
"""Copies of the weights of one step, by name; its gradients arrive at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Everything that a step needs of one learner.

    What it has learned is in the objective, the optimizer and the scaler. Besides, it keeps what was
    done ahead or is left to do: views of a coming step, updates that are not checked yet.

    Attributes:
        distill_weight: factor of the mutual KL, in units of `reduction`.
        rare_distill_weight: the same from `dense_steps` on; None is `distill_weight`.
        dense_steps: the run's first steps that exchange whatever the others do.
        distill_warmup_steps: the weight rises linearly from 0 at the run's step 0 to its full value
            at this step.
        temperature: divisor of the cosines in the similarity distribution.
        teacher_temperature: the same in what it publishes; None is `temperature`.
        teacher_temperature_end: the same at the run's last step, to which it moves in equal parts; None
            leaves it as it is.
        total_steps: of the run, for what changes until its end.
        teacher_momentum: of the average of its weights that publishes in its place. The average is
            `objective.average`, or there is none.
        half: the type of the networks' products and convolutions in a pass; None is their weights' own.
        scaler: scales the loss, where `half` has too few small numbers for gradients.
        memory_format: how views and feature maps lie in memory.
        uses_cuda_graphs: whether its passes are recordings, which must know where a step begins.
        is_symmetric: whether both view directions are published (exchange.symmetric).
        run_seed: the run's seed; this peer's random streams are named by it, the peer and the step.
        is_frozen: whether it teaches with the weights it has, in eval mode, and never learns.
        learning_rate: how the optimizer's rate changes over the run; None leaves it alone.
        clip_norm: a longer gradient is cut to this length; None cuts none.
        chunk_size: images that pass through the networks at a time; None is all of a pass.
        is_gated: whether what it learns from others may not work against its own loss.
        helpers: processes that do parts of its passes; None if it does them alone.
        reads_late: whether losses are read, and updates checked, where the device is waited for anyway,
            or those of several steps at a time.
        looks_ahead: whether a step's forward pass is done before the update of the step before.
        notices: what a user should know about the weights that it starts from, a sentence each.
    """

    id: PeerId
    objective: Objective
    optimizer: torch.optim.Optimizer
    augmentation: Augmentation
    distill_weight: float
    rare_distill_weight: float | None = None
    dense_steps: int = 0
    distill_warmup_steps: int = 0
    reduction: Reduction
    temperature: float
    teacher_temperature: float | None = None
    teacher_temperature_end: float | None = None
    total_steps: int = 1
    teacher_momentum: float = 0.0
    half: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    memory_format: torch.memory_format = torch.contiguous_format
    uses_cuda_graphs: bool = False
    is_symmetric: bool = False
    run_seed: int
    device: torch.device
    is_frozen: bool = False
    learning_rate: LearningRate | None = None
    clip_norm: float | None = None
    chunk_size: int | None = None
    is_gated: bool = False
    helpers: Helpers | None = None
    reads_late: bool = False
    looks_ahead: bool = False
    notices: tuple[str, ...] = ()
    _drawn: dict[int, Views] = field(default_factory=dict, init=False)
    _unchecked: list[tuple[int, torch.Tensor, torch.Tensor]] = field(
        default_factory=list, init=False
    )

    def draw_ahead(self, images_NCHW: torch.Tensor, step: int) -> None:
        """Draws the views of a coming step; they depend on its images and its number alone."""
        self._drawn.clear()
        self._drawn[step] = self.views(images_NCHW, step)

    def views(self, images_NCHW: torch.Tensor, step: int) -> Views:
        """Returns this peer's two augmented views of the step's images, on its device."""
        drawn = self._drawn.pop(step, None)
        if drawn is not None:
            return drawn
        with (
            part(Part.AUGMENT),
            seeding.stream(self.run_seed, self.id, step, "augmentation", device=self.device),
        ):
            views = self.augmentation(to_device(images_NCHW, self.device))
            if self.memory_format is torch.contiguous_format:
                return views
            first, second = (view.contiguous(memory_format=self.memory_format) for view in views)
            return first, second

    def weights_apart(self) -> Weights | None:
        """Returns copies of the weights, for a step whose update comes after that of another one.

        That update changes the weights in place, and a graph needs them as they were. None if the
        steps are done one after the other.
        """
        if not self.looks_ahead or self.is_frozen:
            return None
        return {
            name: weight.detach().clone().requires_grad_()
            for name, weight in self.objective.named_parameters()
            if weight.requires_grad
        }

    def encode(
        self,
        views_NCHW: Views,
        images: StepImages,
        step: int,
        weights: Weights | None = None,
    ) -> ObjectiveOutput:
        """Does one train-mode forward pass; layers that draw (dropout) use this step's stream.

        A frozen peer's pass is in eval mode and has no graph.

        Args:
            views_NCHW: two views of all images of the pass.
            images: tells which of them the loss sees, with their classes, and which are shared.
            step: the run's step.
            weights: from `weights_apart`, in place of the objective's own.
        """
        if self.uses_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self.objective.train(not self.is_frozen)
        labels = () if images.labels_P is None else (to_device(images.labels_P, self.device),)
        split = None
        if self.helpers is not None:
            split = functools.partial(self.helpers.embed, objective=self.objective, step=step)
        given = {
            name: value
            for name, value in (
                ("own", images.own),
                ("shared", images.shared),
                ("chunk_size", self.chunk_size),
                ("split", split),
                ("gated", True if self.is_gated and not self.is_frozen else None),
            )
            if value is not None
        }
        with (
            part(Part.FORWARD),
            seeding.stream(self.run_seed, self.id, step, "forward", device=self.device),
            torch.no_grad() if self.is_frozen else nullcontext(),
            self._arithmetic(),
        ):
            if weights is None:
                output: ObjectiveOutput = self.objective(*views_NCHW, *labels, **given)
            else:
                output = functional_call(
                    self.objective, dict(weights), (*views_NCHW, *labels), given
                )
        return output

    def teaching_pair(
        self, output: ObjectiveOutput, views_NCHW: Views, images: StepImages, step: int
    ) -> ViewPair:
        """Returns the embeddings whose similarities this peer publishes.

        They are those of its own pass, or those that the average of its weights has of the shared
        images: a pass of its own, without a graph.
        """
        average = self.objective.average
        if average is None:
            return output.publish
        rows = slice(None) if images.shared is None else images.shared
        average.train(not self.is_frozen)
        with (
            part(Part.FORWARD),
            seeding.stream(self.run_seed, self.id, step, "average", device=self.device),
            torch.no_grad(),
            self._arithmetic(),
        ):
            a_NCHW, b_NCHW = (view_NCHW[rows] for view_NCHW in views_NCHW)
            return average.published(a_NCHW, b_NCHW, chunk_size=self.chunk_size)

    def log_distribution(self, pair: ViewPair, temperature: float | None = None) -> torch.Tensor:
        """Returns the log similarity distribution of two views, N x N, with its graph."""
        divisor = self.temperature if temperature is None else temperature
        with part(Part.SIMILARITY):
            return log_similarity_distribution(pair.a_ND, pair.b_ND, divisor)

    def distribution(self, pair: ViewPair, step: int) -> SimilarityDistribution:
        """Returns what this peer publishes at a step: the distribution, without a graph."""
        divisor = self.teacher_temperature_at(step)
        with part(Part.SIMILARITY):
            ways = [pair, pair.swapped()] if self.is_symmetric else [pair]
            found = arrays_of([one for way in ways for one in self._one_way(way, divisor)])
            shown = [
                SimilarityDistribution(p_NN, entropy.item())
                for entropy, p_NN in zip(found[::2], found[1::2], strict=True)
            ]
            return replace(shown[0], reverse=shown[1]) if self.is_symmetric else shown[0]

    def distill_weight_at(self, step: int) -> float:
        """Returns the factor of the mutual KL at this step of the run."""
        is_rare = self.rare_distill_weight is not None and step >= self.dense_steps
        weight = self.rare_distill_weight if is_rare else self.distill_weight
        assert weight is not None, "asked for just now"
        if step >= self.distill_warmup_steps:
            return weight
        return weight * step / self.distill_warmup_steps

    def teacher_temperature_at(self, step: int) -> float:
        """Returns the divisor of the cosines in what is published at this step of the run."""
        first = self.temperature if self.teacher_temperature is None else self.teacher_temperature
        if self.teacher_temperature_end is None:
            return first
        done = min(1.0, step / max(1, self.total_steps - 1))
        return (1.0 - done) * first + done * self.teacher_temperature_end

    def _one_way(self, pair: ViewPair, divisor: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the negative entropy and the distribution of one view direction, on the device."""
        with torch.no_grad():
            log_p_NN = self.log_distribution(pair, divisor).float()
            p_NN = log_p_NN.exp()
            return negative_entropy(p_NN, log_p_NN), p_NN

    def _arithmetic(self) -> torch.autocast:
        """Returns the context of a pass; losses and similarities leave it by themselves."""
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def synchronise(self) -> None:
        """Waits until the GPU has finished, so that times are measured right; a no-op on a CPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def can_go_back_ahead(self) -> bool:
        """Whether a backward pass may be done before the updates that come before its own.

        A frozen peer has none. One in fp16 depends on the scale of the loss, which an update moves.
        """
        return self.looks_ahead and not self.is_frozen and self.scaler is None

    def go_back_ahead(self, loss: torch.Tensor, weights: Weights) -> None:
        """Does the backward pass of a step before its `update`, which then finds the gradient.

        The gradient is that of the copies of the weights, so it is the same at whatever time.

        Args:
            loss: all that the step learns from.
            weights: those of its forward pass, from `weights_apart`.
        """
        assert self.can_go_back_ahead and weights, "there are copies to keep the gradient"
        with part(Part.BACKWARD):
            self._backward(loss)

    def update(
        self,
        loss: torch.Tensor,
        step: int,
        weights: Weights | None = None,
        *,
        has_gradient: bool = False,
    ) -> None:
        """Makes one optimizer step; a frozen peer makes none.

        Args:
            loss: a scalar with its graph.
            step: the run's step.
            weights: those of its forward pass, if they are not the objective's own.
            has_gradient: whether they have their gradient already (`go_back_ahead`).

        Raises:
            TrainingError: the loss or its gradient is not finite; nothing has been changed. With
                precision=fp16 a gradient that overflows lowers the scale of the loss first. With
                `reads_late` the update is made all the same, and `check_updates` raises.
        """
        if self.is_frozen:
            return
        with part(Part.BACKWARD):
            self.optimizer.zero_grad(set_to_none=True)
            if not has_gradient:
                self._backward(loss if self.scaler is None else self.scaler.scale(loss))
            for name, copy in (weights or {}).items():
                self.objective.get_parameter(name).grad = copy.grad
        with part(Part.UPDATE):
            self._apply_gradients(loss, step)

    def _apply_gradients(self, loss: torch.Tensor, step: int) -> None:
        """Makes the optimizer's step; see `update`."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.reads_late and self.scaler is None:
            self._unchecked.append((step, loss.detach(), norm))
        elif not (torch.isfinite(norm) & torch.isfinite(loss)):
            if torch.isfinite(loss) and self._has_lowered_the_scale(step):
                return
            raise self._diverged_update(step, *numbers_of((loss, norm)))
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.objective.parameters(), self.clip_norm, norm)
        self._set_rate(step)
        self.optimizer.step()
        if self.scaler is not None:
            self.scaler.update()
        self.objective.after_update()
        if self.objective.average is not None:
            self.objective.move_average(self.teacher_momentum)

    def _has_lowered_the_scale(self, step: int) -> bool:
        """Whether a gradient that is not finite may come from the scale of the loss, now lower."""
        if self.scaler is None:
            return False
        before = self.scaler.get_scale()
        self.scaler.update()
        after = self.scaler.get_scale()
        if after >= before or after < 1.0:
            return False
        logger.info(
            "peer=%s step=%d is left out: its gradient overflows in fp16. The scale of the loss is "
            "now %g",
            self.id,
            step,
            after,
        )
        return True

    def _backward(self, loss: torch.Tensor) -> None:
        """Computes the gradients.

        A pass in chunks is done again meanwhile. It must move running statistics no second time.
        """
        if self.chunk_size is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        kept = [(one, one.detach().clone()) for one in self.objective.buffers()]
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)

    def _set_rate(self, step: int) -> None:
        """Gives the optimizer the rate of this step; its full value is kept beside it."""
        if self.learning_rate is None or self.learning_rate.is_constant:
            return
        for group in self.optimizer.param_groups:
            full = group.setdefault("initial_lr", group["lr"])  # goes into checkpoints
            group["lr"] = full * self.learning_rate.share_at(step)

    def check_updates(self, *scalars: torch.Tensor) -> list[float]:
        """Checks the updates that were made since the last call; waits for the device.

        Args:
            scalars: what else is to be read, by the same copy.

        Returns:
            The numbers of the scalars.

        Raises:
            TrainingError: a loss or its gradient was not finite; the peer is of no use any more, and
                each further call says so again.
        """
        pairs = [scalar for _, loss, norm in self._unchecked for scalar in (loss, norm)]
        numbers = numbers_of([*pairs, *scalars])
        checked, others = numbers[: len(pairs)], numbers[len(pairs) :]
        for (step, _, _), loss, norm in zip(
            self._unchecked, checked[::2], checked[1::2], strict=True
        ):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._diverged_update(step, loss, norm)
        self._unchecked.clear()
        return others

    def _diverged_update(self, step: int, loss: float, norm: float) -> TrainingError:
        if not math.isfinite(loss):
            return self.diverged("the loss", loss, step)
        return self.diverged(f"the length of the gradient (of a loss of {loss:g})", norm, step)

    def check_state(self, step: int) -> None:
        """Checks that the weights can be kept; buffers may be infinite on purpose, never NaN.

        Args:
            step: the last step that was done.

        Raises:
            TrainingError: a number is not finite; the message names its tensor.
        """
        for name, weight in self.objective.named_parameters():
            if not torch.isfinite(weight).all():
                raise self.diverged(f"a number of {name}", math.nan, step)
        for name, buffer in self.objective.named_buffers():
            if buffer.is_floating_point() and buffer.isnan().any():
                raise self.diverged(f"a number of {name}", math.nan, step)

    def diverged(self, what: str, value: float, step: int) -> TrainingError:
        """Returns the error that tells what is not finite, where, and what may help."""
        return TrainingError(
            f"{what} of peer {self.id!r} is {value} at step {step}: its training has diverged. "
            "This state is not used or saved; its last checkpoint is from before. Lower "
            f"peers.{self.id}.optimizer.options.lr, or look at the images of this step"
        )
