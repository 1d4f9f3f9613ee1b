"""The exact derivative of a validation loss through the last steps of SGD.

The classifier takes steps with momentum μ and weight decay λ (torch.optim.SGD's rule):

    d_k = ∇_w L_train(w_k; x̂_k) + λ w_k,  m_{k+1} = μ m_k + d_k,  w_{k+1} = w_k − ζ_k m_{k+1}

(with d_k + μ m_{k+1} for m_{k+1} in Nesterov's form). `image_gradients` gives ∂L_val(w_K)/∂x̂_k for
the K last of them, by running the recursion backwards: each step costs one product of the mixed
derivative ∂²L_train/∂x̂∂w with a vector, and each but the earliest one Hessian product more.
Online bilevel optimisation (Mounsaveng et al., WACV 2021, section 3.3) takes K = 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from raysearch.hypergrad._rewards import Network, Parameters
from raysearch.hypergrad._second_order import SecondOrder


@dataclass(frozen=True)
class SGDRule:
    """torch.optim.SGD's update as a function.

    Attributes:
        momentum: μ in [0, 1).
        nesterov: Nesterov's form.
        weight_decay: λ, at least 0.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def step(
        self,
        parameters: Mapping[str, Tensor],
        velocity: Mapping[str, Tensor | None],
        gradient: Mapping[str, Tensor],
        lr: float,
    ) -> tuple[Parameters, Parameters]:
        """Parameters and velocity m after a step; none of the inputs changes.

        Args:
            parameters: w_k.
            velocity: m_k; where a name is missing, or None, it is 0.
            gradient: ∇_w L_train at w_k, without weight decay.
            lr: ζ_k.
        """
        after: Parameters = {}
        moved: Parameters = {}
        for name, w in parameters.items():
            d = gradient[name] + self.weight_decay * w
            before = velocity.get(name)
            m = d if before is None else self.momentum * before + d
            after[name] = w - lr * (d + self.momentum * m if self.nesterov else m)
            moved[name] = m
        return after, moved


@dataclass(frozen=True)
class TrainStep:
    """One step of the classifier, kept for differentiating through it.

    Attributes:
        parameters: w_k, leaves.
        images: x̂_k, normalised, a leaf, [B, C, H, W].
        gradient: ∇_w of the mean loss, with the graph that leads to it.
        loss: that mean loss, a detached scalar.
        lr: ζ_k.
        second: made the graph.
    """

    parameters: Parameters
    images: Tensor
    gradient: Parameters
    loss: Tensor
    lr: float
    second: SecondOrder


def train_step(
    network: Network, parameters: Mapping[str, Tensor], images: Tensor, targets: Tensor, lr: float
) -> TrainStep:
    """Loss and gradient of a batch, ready to be differentiated once more.

    Moves the running statistics of the network's own batch normalisation, as a step of a plain
    training does.

    Args:
        network: the classifier, in train mode.
        parameters: w_k; copied, so that an update in place does not disturb the graph.
        images: augmented, normalised, [B, C, H, W]; detached.
        targets: of the images.
        lr: ζ_k.
    """
    own = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    leaf = images.detach().requires_grad_()
    second = SecondOrder()
    # attention's fused kernels have no second derivative
    with sdpa_kernel(SDPBackend.MATH), second:
        losses = network.own_losses(leaf, targets, own)
    loss = losses.mean()
    found = torch.autograd.grad(loss, list(own.values()), create_graph=True)
    return TrainStep(own, leaf, dict(zip(own, found, strict=True)), loss.detach(), lr, second)


def image_gradients(
    steps: Sequence[TrainStep], v: Mapping[str, Tensor], rule: SGDRule
) -> list[Tensor]:
    """∂L_val(w_K)/∂x̂_k of each step, [B, C, H, W], in the order given.

    Args:
        steps: consecutive, the last one leading to w_K.
        v: ∇L_val at w_K.
        rule: how the steps were taken.
    """
    adjoint_w = dict(v)
    adjoint_m: Parameters = {}
    found: list[Tensor] = []
    for index in reversed(range(len(steps))):
        step = steps[index]
        adjoint_g: Parameters = {}
        for name, adjoint in adjoint_w.items():
            moved = adjoint * -step.lr
            total = moved * rule.momentum if rule.nesterov else moved
            if name in adjoint_m:
                total = total + adjoint_m[name]
            adjoint_g[name] = total + moved if rule.nesterov else total
            adjoint_m[name] = rule.momentum * total
        names = list(step.gradient)
        wanted = [step.images, *(step.parameters.values() if index else [])]
        products = step.second.gradients(
            [step.gradient[name] for name in names],
            wanted,
            [adjoint_g[name] for name in names],
            of_weights=index > 0,
        )
        found.append(products[0])
        for name, curvature in zip(names, products[1:], strict=False):
            adjoint_w[name] = adjoint_w[name] + rule.weight_decay * adjoint_g[name] + curvature
    return found[::-1]
