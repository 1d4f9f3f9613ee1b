"""Per-image rewards: what training on each augmented image does to the validation loss.

With w' = w − ζ ∇_w Σ_i ω_i ℓ_i(w) (ω_i = 1/B unless weights are given) and v = ∇_w L_val(w'), the
derivative of L_val(w') with respect to ω_i, how much image i's loss counts, is −ζ r_i, where

    r_i = ⟨v, ∇_w ℓ_i(w)⟩ = d/dε ℓ_i(w + ε v) at ε = 0.

All B of them come from plain forward passes with per-image losses, beside the train gradient
that the classifier's own update needs anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raysearch.tasks import Classification, Task

Parameters = dict[str, Tensor]
Difference = Literal["auto", "forward", "central"]


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

    def losses(self, parameters: Mapping[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        """Per-image losses at other parameters, [B], precise enough to be subtracted."""
        return self.task.losses(self.outputs(parameters, images, exact=True), targets)

    def own_losses(
        self, images: Tensor, targets: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Losses that do move the running statistics, at the module's own weights.

        Copies of these can be given as `parameters`; nothing is rounded by autocast then.
        """
        if parameters is not None:
            return self.task.losses(
                functional_call(self.model, dict(parameters), (images,)), targets
            )
        device = images.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            outputs = self.model(images)
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
    losses, train_loss, gradient, pixels_at_w = _train_gradient(
        network, train, weights, with_pixels
    )
    v, val_loss, val_wrong = validate(network, step_along(own, gradient, -lr), val)
    step = epsilon / max(norm(v), 1e-12)

    def at(scale: float) -> tuple[Tensor, Tensor | None]:
        torch.manual_seed(masks)
        with _tf32(allowed=False):
            return _losses_and_pixels(network, step_along(own, v, scale), train, with_pixels)

    if difference == "auto":
        difference = "central" if losses.is_cuda else "forward"
    plus = at(step)
    if difference == "central":
        minus, width = at(-step), 2 * step
    elif losses.is_cuda:  # those at w were rounded to bfloat16
        minus, width = at(0.0), step
    else:
        minus, width = (losses, pixels_at_w), step
    rewards = (plus[0] - minus[0]) / width
    pixel_rewards = None
    if plus[1] is not None and minus[1] is not None:
        pixel_rewards = (plus[1] - minus[1]).flatten(1).sum(1) / width
    return OneStep(
        rewards=rewards,
        pixel_rewards=pixel_rewards,
        gradient=gradient,
        train_loss=train_loss,
        val_loss=val_loss,
        val_wrong=val_wrong,
    )


def _train_gradient(
    network: Network, train: tuple[Tensor, Tensor], weights: Tensor | None, with_pixels: bool
) -> tuple[Tensor, Tensor, Parameters, Tensor | None]:
    """ℓ_i(w), the train loss, its gradient, and ∂Σℓ/∂x when asked for."""
    images = train[0].detach().requires_grad_(with_pixels)
    own = network.parameters()
    losses = network.own_losses(images, train[1])
    wanted: list[Tensor] = [*own.values(), *([images] if with_pixels else [])]
    total = losses.sum() if weights is None else (weights * losses).sum()
    found = torch.autograd.grad(total, wanted)
    count = len(images) if weights is None else 1
    gradient = {name: g / count for name, g in zip(own, found, strict=False)}
    pixels = found[-1] if with_pixels else None
    return losses.detach(), total.detach() / count, gradient, pixels


def validate(
    network: Network, ahead: Parameters, val: tuple[Tensor, Tensor]
) -> tuple[Parameters, Tensor, Tensor]:
    """v = ∇L_val, L_val and `Task.wrong`, at the weights `ahead`."""
    ahead = {name: parameter.requires_grad_() for name, parameter in ahead.items()}
    outputs = network.outputs(ahead, val[0])
    loss = network.task.losses(outputs, val[1]).mean()
    v = dict(zip(ahead, torch.autograd.grad(loss, list(ahead.values())), strict=True))
    return v, loss.detach(), network.task.wrong(outputs, val[1])


def _losses_and_pixels(
    network: Network, parameters: Parameters, train: tuple[Tensor, Tensor], with_pixels: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses at `parameters`, and ∂Σℓ/∂x when asked for."""
    images = train[0].detach().requires_grad_(with_pixels)
    with torch.set_grad_enabled(with_pixels):
        losses = network.losses(parameters, images, train[1])
    pixels = torch.autograd.grad(losses.sum(), images)[0] if with_pixels else None
    return losses.detach(), pixels
