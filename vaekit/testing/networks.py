"""Contracts of backbones, discriminators and adversarial losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vaekit.registry import Registry, adversarial_losses, backbones, discriminators
from vaekit.testing.contract import Contract, ModuleContract, fixed, without_gradient

__all__ = ["AdversarialLossContract", "BackboneContract", "DiscriminatorContract"]

SHAPES = ((1, 8, 8), (3, 28, 28), (3, 33, 50), (1, 64, 64))


class _ForShapes(ModuleContract):
    """Runs the tests that take a `shape` for each of the class's `shapes`."""

    shapes: ClassVar[Sequence[tuple[int, ...]]] = SHAPES

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give every shape its own test."""
        if "shape" in metafunc.fixturenames:
            metafunc.parametrize("shape", self.shapes, ids=str)


class BackboneContract(_ForShapes):
    """What a backbone promises: an encoder and a decoder for any shape of sample.

    Attributes:
        shapes: The shapes to try; take out what the backbone refuses, add what else it takes, such as `(10,)`.
    """

    registry: ClassVar[Registry] = backbones

    def latent_dim(self, shape: tuple[int, ...]) -> int:
        """Return a number of latent dimensions that it can decode to a shape: 5, unless it cannot choose."""
        return 5

    def module(self) -> nn.Module:
        """Build encoder and decoder for the first shape."""
        backbone, shape = self.make(), self.shapes[0]
        return nn.ModuleList([backbone.encoder(shape), backbone.decoder(self.latent_dim(shape), shape)])

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return 5 samples of the first shape."""
        return fixed(5, *self.shapes[0], dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return features and decoded values of each sample."""
        encoder, decoder = module
        latents = inputs.flatten(1)[:, : self.latent_dim(self.shapes[0])]
        return torch.cat([encoder(inputs), decoder(latents).flatten(1)], dim=-1)

    def test_every_shape(self, shape: tuple[int, ...]) -> None:
        """(B, *shape) to (B, features) and (B, D) to (B, *shape), with a gradient for every parameter.

        The decoder also gives more channels than the data has, as likelihoods with several parameters ask for.
        """
        backbone = self.make()
        encoder = backbone.encoder(shape)
        features = encoder(fixed(4, *shape))
        assert features.shape == (4, encoder.features), "`features` is not what the encoder gives"
        assert features.isfinite().all()
        missing = without_gradient(encoder, (features * fixed(*features.shape, seed=1)).sum())
        assert not missing, f"encoder: no gradient, or one that is not finite, for {missing}"
        for decoded_shape in (shape, (2 * shape[0], *shape[1:])):
            latent_dim = self.latent_dim(shape)
            decoder = backbone.decoder(latent_dim, decoded_shape)
            decoded = decoder(fixed(4, latent_dim))
            assert decoded.shape == (4, *decoded_shape)
            assert decoded.isfinite().all()
            loss = (decoded * fixed(*decoded.shape, seed=1)).sum()
            missing = without_gradient(decoder, loss)
            assert not missing, f"decoder: no gradient, or one that is not finite, for {missing}"

    def test_last_layer(self) -> None:
        """`last_layer` is a weight of the decoder that gets a gradient."""
        backbone, latent_dim = self.make(), self.latent_dim(self.shapes[0])
        decoder = backbone.decoder(latent_dim, self.shapes[0])
        assert any(decoder.last_layer is parameter for parameter in decoder.parameters())
        decoded = decoder(fixed(4, latent_dim))
        (gradient,) = torch.autograd.grad((decoded * fixed(*decoded.shape, seed=1)).sum(), decoder.last_layer)
        assert gradient.any()

    def test_new_networks_each_time(self) -> None:
        """A backbone holds options, not weights: each call builds a new network."""
        backbone, shape = self.make(), self.shapes[0]
        for build in (lambda: backbone.encoder(shape), lambda: backbone.decoder(self.latent_dim(shape), shape)):
            first, second = build(), build()
            assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


class DiscriminatorContract(_ForShapes):
    """What a discriminator promises: logits for each sample, which can be differentiated twice.

    Attributes:
        shapes: The shapes of sample to try.
    """

    registry: ClassVar[Registry] = discriminators

    def module(self) -> nn.Module:
        """Build it for the first shape."""
        return self.make(self.shapes[0])

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return 5 samples of the first shape."""
        return fixed(5, *self.shapes[0], dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return the logits of each sample."""
        return module(inputs).flatten(1)

    def test_every_shape(self, shape: tuple[int, ...]) -> None:
        """Finite logits (B, ...), with a gradient for the samples and for every parameter."""
        module, x = self.make(shape), fixed(4, *shape).requires_grad_()
        logits = module(x)
        assert logits.shape[0] == 4
        assert logits.isfinite().all()
        loss = (logits * fixed(*logits.shape, seed=1)).sum()
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        assert gradient.flatten(1).any(1).all(), "the generator gets no gradient"
        missing = without_gradient(module, loss)
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    def test_gradient_penalty(self) -> None:
        """The gradient at the samples can itself be differentiated, as the R1 penalty needs."""
        module, x = self.module(), self.inputs().requires_grad_()
        (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        penalty = slope.square().sum()
        assert penalty.isfinite()
        gradients = torch.autograd.grad(penalty, list(module.parameters()), allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


class AdversarialLossContract(Contract):
    """What an adversarial loss promises: one value per sample, and gradients that pull the right way."""

    registry: ClassVar[Registry] = adversarial_losses

    @pytest.mark.parametrize("which", ["real", "fake", "generator"])
    @pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 4, 4)], ids=str)
    def test_one_value_per_sample(self, which: str, shape: tuple[int, ...]) -> None:
        """Logits (B, ...) of any shape give (B,), each from its own sample's logits alone."""
        loss, logits = getattr(self.make(), which), fixed(*shape)
        values = loss(logits)
        assert (values.shape, values.dtype) == ((5,), torch.float32)
        torch.testing.assert_close(loss(logits[2:3]), values[2:3])

    @pytest.mark.parametrize("which", ["real", "fake", "generator"])
    def test_finite_in_half_precision(self, which: str) -> None:
        """Half-precision logits, also large ones, give finite float32."""
        values = getattr(self.make(), which)(torch.tensor([[-1e4], [0.0], [1e4]], dtype=torch.bfloat16))
        assert values.dtype == torch.float32
        assert values.isfinite().all()

    def test_pulls_the_right_way(self) -> None:
        """The discriminator raises real logits and lowers fake ones; the generator raises those of its fakes."""
        loss = self.make()
        for which, at, sign in (("real", 0.5, -1), ("fake", 0.5, 1), ("generator", -0.5, -1)):
            logits = torch.full((3, 2), at, requires_grad=True)
            (gradient,) = torch.autograd.grad(getattr(loss, which)(logits).sum(), logits)
            assert (gradient.sign() == sign).all(), f"{which}: the gradient has the wrong sign"
