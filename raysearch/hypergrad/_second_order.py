"""Convolution and batch normalisation whose second derivatives cost what they must.

A mixed derivative ∂/∂x ⟨u, ∇_w ℓ(w; x)⟩ is a backward pass through a backward pass. PyTorch's own
takes batch normalisation through some forty elementwise passes, and computes gradients for weights
that nobody asked for. Inside `SecondOrder`, both operations are autograd functions whose backward
is an autograd function too, with the second derivative written out. Everything else of a network
(activations, pooling, products) is left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
Ints = tuple[int, ...]


class SecondOrder(TorchFunctionMode):
    """Inside the block, networks are differentiated twice at less cost; results are the same.

    >>> second = SecondOrder()
    >>> x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 3, 3)
    >>> with second:
    ...     y = torch.nn.functional.conv2d(x, w.requires_grad_())
    >>> (g,) = torch.autograd.grad(y.square().sum(), w, create_graph=True)
    >>> second.gradients([g], [x], [torch.ones_like(g)], of_weights=False)[0].shape
    torch.Size([2, 3, 8, 8])
    """

    of_weights = True  # whether the backward pass that runs now is for weights of convolutions too

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func is F.conv2d:
            return self._conv2d(*args, **kwargs)
        return func(*args, **kwargs)

    def gradients(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *,
        of_weights: bool,
    ) -> tuple[Tensor, ...]:
        """∂/∂inputs of Σ ⟨cotangent, output⟩, for outputs that are gradients themselves.

        Args:
            outputs, inputs, cotangents: as `torch.autograd.grad` takes them.
            of_weights: whether weights of convolutions are among the inputs; without them, their
                gradients are not computed.
        """
        self.of_weights = of_weights
        try:
            return torch.autograd.grad(outputs, inputs, cotangents)
        finally:
            self.of_weights = True

    def _batch_norm(
        self,
        images: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training or weight is None or bias is None:
            return F.batch_norm(images, mean, var, weight, bias, training, momentum, eps)
        return _BatchNorm.apply(images, weight, bias, mean, var, momentum, eps)  # type: ignore[no-any-return, no-untyped-call]

    def _conv2d(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Ints = 1,
        padding: int | Ints | str = 0,
        dilation: int | Ints = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or images.ndim != 4:
            return F.conv2d(images, weight, bias, stride, padding, dilation, groups)
        how = _How(_two(stride), _two(padding), _two(dilation), groups, self)
        result: Tensor = _Conv.apply(images, weight, how)  # type: ignore[no-untyped-call]
        return result if bias is None else result + bias[:, None, None]


@dataclass(frozen=True)
class _How:
    """A convolution's settings."""

    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    second: SecondOrder

    def forward(self, images: Tensor, weight: Tensor) -> Tensor:
        return torch.conv2d(
            images, weight, None, self.stride, self.padding, self.dilation, self.groups
        )

    def backward(
        self, gradient: Tensor, images: Tensor, weight: Tensor, of_images: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        found = aten.convolution_backward(
            gradient,
            images,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [of_images, of_weight, False],
        )
        return found[0], found[1]


def _two(value: int | Ints) -> Ints:
    return (value, value) if isinstance(value, int) else tuple(value)


class _Conv(Function):
    """y = x ∗ w."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, how: _How) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.how = how
        return how.forward(images, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images, of_weight, _ = ctx.needs_input_grad
        of_weight = of_weight and ctx.how.second.of_weights
        found = _ConvBackward.apply(  # type: ignore[no-untyped-call]
            gradients[0], images, weight, ctx.how, of_images, of_weight
        )
        return *found, None


class _ConvBackward(Function):
    """(g, x, w) to the gradients for x, g ∗ᵀ w, and for w."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        images: Tensor,
        weight: Tensor,
        how: _How,
        of_images: bool,
        of_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(gradient, images, weight)
        ctx.set_materialize_grads(False)
        ctx.how = how
        return how.backward(gradient, images, weight, of_images, of_weight)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """From cotangents u of the gradient for x and v of that for w; all terms are bilinear."""
        (u, v), how = cotangents, ctx.how
        gradient, images, weight = ctx.saved_tensors
        of_gradient = of_images = of_weight = None
        if v is not None:
            of_gradient = how.forward(images, v)
            if ctx.needs_input_grad[1]:
                of_images = how.backward(gradient, images, v, True, False)[0]
        if u is not None:
            through = how.forward(u, weight)
            of_gradient = through if of_gradient is None else of_gradient.add_(through)
            if ctx.needs_input_grad[2] and how.second.of_weights:
                of_weight = how.backward(gradient, u, weight, False, True)[1]
        return of_gradient, of_images, of_weight, None, None, None


def _normalise_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of batch normalisation for images, scale and shift, fused."""
    found: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
        gradient, images, weight, None, None, mean, inverse, True, eps, [True, True, True]
    )
    return found


class _BatchNorm(Function):
    """y = γ x̂ + β with x̂ = (x − μ) / σ over the batch."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        result, mean, inverse = torch.native_batch_norm(
            images, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(images, weight, mean, inverse)
        ctx.eps = eps
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = _BatchNormBackward.apply(gradients[0], *ctx.saved_tensors, ctx.eps)  # type: ignore[no-untyped-call]
        return *found, None, None, None, None


class _BatchNormBackward(Function):
    """g to γ/σ (g − mean(g) − x̂ mean(g x̂)), Σ g x̂ and Σ g."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        images: Tensor,
        weight: Tensor,
        mean: Tensor,
        inverse: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _normalise_backward(gradient, images, weight, mean, inverse, eps)
        ctx.save_for_backward(gradient, images, weight, mean, inverse, found[1], found[2])
        ctx.eps = eps
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """From cotangents u, a, b of the three results, S = ⟨u, ·⟩ + a Σ g x̂ + b Σ g.

        ∂S/∂g is the same map applied to u, plus a x̂ + b. In x, S depends on x̂, whose derivative
        is the same map with γ = 1, and on σ, whose derivative is x̂ / n.
        """
        u, a, b = cotangents
        gradient, images, weight, mean, inverse, sum_g_x, sum_g = ctx.saved_tensors
        n = images.numel() / images.shape[1]
        scale = weight * inverse
        of_gradient, sum_u_x, sum_u = _normalise_backward(u, images, weight, mean, inverse, ctx.eps)
        _add_normalised(of_gradient, images, a, b, mean, inverse)

        over = [d for d in range(images.ndim) if d != 1]
        sum_u_g = (u * gradient).sum(over)
        own = sum_u_g - sum_u * sum_g / n - sum_u_x * sum_g_x / n  # ⟨u, ·⟩ σ/γ
        normalised = gradient * _channels(a - scale * sum_u_x / n, images)
        normalised.addcmul_(u, _channels(-scale * sum_g_x / n, images))
        ones = torch.ones_like(weight)
        of_images = _normalise_backward(normalised, images, ones, mean, inverse, ctx.eps)[0]
        shrink = -scale * own * inverse / n
        _add_normalised(of_images, images, shrink, torch.zeros_like(shrink), mean, inverse)
        return of_gradient, of_images, inverse * own, None, None, None


def _add_normalised(
    target: Tensor, images: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor
) -> None:
    """target += scale · x̂ + shift, in place, without x̂ in memory."""
    slope = scale * inverse
    target.addcmul_(images, _channels(slope, images)).add_(_channels(shift - slope * mean, images))


def _channels(values: Tensor, images: Tensor) -> Tensor:
    """[C] so that it broadcasts over [B, C, ...]."""
    return values.reshape(-1, *[1] * (images.ndim - 2))
