"""Per-image rewards: what training on each augmented image does to the validation loss.

With w' = w − ζ ∇_w Σ_i ω_i ℓ_i(w) (ω_i = 1/B unless weights are given) and v = ∇_w L_val(w'), the
derivative of L_val(w') with respect to ω_i, how much image i's loss counts, is −ζ r_i, where

    r_i = ⟨v, ∇_w ℓ_i(w)⟩ = d/dε ℓ_i(w + ε v) at ε = 0.

All B of them come from plain forward passes with per-image losses, beside the train gradient
that the classifier's own update needs anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raysearch.tasks import Classification, Task
from raysearch.training import autocast

Parameters = dict[str, Tensor]
Difference = Literal["auto", "forward", "central"]
Losses = tuple[Tensor, Tensor | None]
"""ℓ_i of each image, [B], and ∂Σℓ/∂x, [B, C, H, W], where it is asked for."""


@dataclass(frozen=True)
class OneStep:
    """The result of `one_step_rewards`.

    Attributes:
        rewards: r_i, [B]; larger means that image i's step lowers the validation loss more.
        pixel_rewards: Σ_pixels ∂r_i/∂x_i, [B], the straight-through derivative of r_i with
            respect to a magnitude; None unless asked for.
        gradient: ∇_w of the train loss Σ_i ω_i ℓ_i(w), by parameter name.
        train_loss: Σ_i ω_i ℓ_i(w), a scalar tensor; the mean where no weights are given.
        val_loss: L_val(w'), a scalar tensor.
        val_wrong: `Task.wrong` of the validation images at w', a scalar tensor in [0, 1].
    """

    rewards: Tensor
    pixel_rewards: Tensor | None
    gradient: Parameters
    train_loss: Tensor
    val_loss: Tensor
    val_wrong: Tensor


class Network:
    """A module as a function of its parameters that leaves the module untouched.

    Batch normalisation uses batch statistics; its running ones are written to scratch copies,
    so the extra passes of a search do not disturb the classifier's own.

    Args:
        model: the module.
        task: whose losses per image are taken.
    """

    def __init__(self, model: nn.Module, task: Task | None = None) -> None:
        self.model = model
        self.task = task or Classification()
        self._scratch = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def parameters(self) -> Parameters:
        """The module's own trainable parameters, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def outputs(
        self, parameters: Mapping[str, Tensor], images: Tensor, *, exact: bool = False
    ) -> Tensor:
        """Outputs for a batch at other parameters, without autocast if `exact`."""
        device = images.device.type
        low = device == "cuda" and not exact
        with torch.autocast(device, dtype=torch.bfloat16, enabled=low):
            return functional_call(  # type: ignore[no-any-return]
                self.model, ({**parameters}, self._scratch), (images,)
            )

    def own_losses(
        self, images: Tensor, targets: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Losses that do move the running statistics, at the module's own weights.

        Copies of these can be given as `parameters`; nothing is rounded by autocast then.
        """
        if parameters is None:
            with autocast(images.device):
                outputs = self.model(images)
        else:
            outputs = functional_call(self.model, dict(parameters), (images,))
        return self.task.losses(outputs, targets)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products may round to TF32 inside.

    A difference along v moves each weight by less than TF32 or bfloat16 resolve.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = convolutions and allowed
    torch.backends.cuda.matmul.allow_tf32 = products and allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def step_along(parameters: Mapping[str, Tensor], direction: Parameters, scale: float) -> Parameters:
    """parameters + scale · direction, detached; the inputs stay as they are."""
    names = list(direction)
    moved = torch._foreach_add(
        [parameters[n].detach() for n in names], [direction[n] for n in names], alpha=scale
    )
    return dict(zip(names, moved, strict=True))


def norm(direction: Parameters) -> float:
    """Euclidean norm over all parameters together."""
    norms = torch._foreach_norm(list(direction.values()))
    return float(torch.stack(norms).norm())


def one_step_rewards(
    network: Network,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    lr: float,
    *,
    difference: Difference = "auto",
    epsilon: float = 0.01,
    with_pixels: bool = True,
    weights: Tensor | None = None,
) -> OneStep:
    """Rewards of all images of a batch, and the train gradient, in one go.

    Cost in passes of the network, a plain step being 3 (a forward and a backward of twice its
    arithmetic): 3 at w, 3 at w', and 1 (forward difference on the CPU) or 2, each with one more
    when `with_pixels`.

    Args:
        network: the classifier, in train mode.
        train: augmented, normalised images [B, C, H, W] and their targets.
        val: normalised validation images and targets.
        lr: ζ, the classifier's current learning rate.
        difference: `forward` (error O(ε)), between the losses at w and a step along v, or
            `central` (O(ε²)), between a step each way. The forward one reuses the losses at w that
            the train gradient needs; on CUDA these are computed in bfloat16, so it computes
            them once more and costs as much as the central one. `auto` is forward on the CPU and
            central on CUDA.
        epsilon: length of the step along v in weight space; ε = epsilon / ‖v‖ (DADA, section 3.3).
        with_pixels: also the straight-through derivative with respect to magnitudes. It is that
            of r_i, so it does not go together with weights.
        weights: ω, how much each image's loss counts, [B]; None is 1/B each.

    Returns:
        See `OneStep`.
    """
    if with_pixels and weights is not None:
        raise ValueError("with_pixels=True and weights exclude each other")
    masks = int(torch.randint(2**62, ()))  # the same dropout masks in every pass that is compared
    own = network.parameters()
    torch.manual_seed(masks)
    at_w, train_loss, gradient = _train_gradient(network, train, weights, with_pixels)
    v, val_loss, val_wrong = validate(network, step_along(own, gradient, -lr), val)

    def at(scale: float) -> Losses:
        torch.manual_seed(masks)
        with _tf32(allowed=False):
            return _losses(network, step_along(own, v, scale), train, with_pixels)

    rewards, pixels = _derivative(at, at_w, epsilon / max(norm(v), 1e-12), difference)
    return OneStep(rewards, pixels, gradient, train_loss, val_loss, val_wrong)


def _train_gradient(
    network: Network, train: tuple[Tensor, Tensor], weights: Tensor | None, with_pixels: bool
) -> tuple[Losses, Tensor, Parameters]:
    """What `_losses` gives at w; the train loss, and its gradient."""
    images = train[0].detach().requires_grad_(with_pixels)
    own = network.parameters()
    losses = network.own_losses(images, train[1])
    wanted: list[Tensor] = [*own.values(), *([images] if with_pixels else [])]
    total = losses.sum() if weights is None else (weights * losses).sum()
    found = torch.autograd.grad(total, wanted)
    count = len(images) if weights is None else 1
    gradient = {name: g / count for name, g in zip(own, found, strict=False)}
    pixels = found[-1] if with_pixels else None
    return (losses.detach(), pixels), total.detach() / count, gradient


def _derivative(
    at: Callable[[float], Losses], at_w: Losses, step: float, difference: Difference
) -> Losses:
    """dℓ_i/dε of w + ε v at ε = 0, and that of Σ_pixels ∂ℓ_i/∂x_i where there is one; both [B].

    Args:
        at: ℓ at w + ε v.
        at_w: ℓ at w, as the train gradient has it.
        step: ε.
        difference: see `one_step_rewards`.
    """
    on_gpu = at_w[0].is_cuda
    if difference == "auto":
        difference = "central" if on_gpu else "forward"
    above = at(step)
    if difference == "central":
        below, width = at(-step), 2 * step
    else:  # on a GPU those at w were rounded to bfloat16
        below, width = at(0.0) if on_gpu else at_w, step
    pixels = None
    if above[1] is not None and below[1] is not None:
        pixels = (above[1] - below[1]).flatten(1).sum(1) / width
    return (above[0] - below[0]) / width, pixels


def validate(
    network: Network, ahead: Parameters, val: tuple[Tensor, Tensor]
) -> tuple[Parameters, Tensor, Tensor]:
    """v = ∇L_val, L_val and `Task.wrong`, at the weights `ahead`."""
    ahead = {name: parameter.requires_grad_() for name, parameter in ahead.items()}
    outputs = network.outputs(ahead, val[0])
    loss = network.task.losses(outputs, val[1]).mean()
    v = dict(zip(ahead, torch.autograd.grad(loss, list(ahead.values())), strict=True))
    return v, loss.detach(), network.task.wrong(outputs, val[1])


def _losses(
    network: Network, parameters: Parameters, train: tuple[Tensor, Tensor], with_pixels: bool
) -> Losses:
    """Losses at `parameters`, precise enough to be subtracted; see `Losses`."""
    images = train[0].detach().requires_grad_(with_pixels)
    with torch.set_grad_enabled(with_pixels):
        losses = network.task.losses(network.outputs(parameters, images, exact=True), train[1])
    pixels = torch.autograd.grad(losses.sum(), images)[0] if with_pixels else None
    return losses.detach(), pixels
