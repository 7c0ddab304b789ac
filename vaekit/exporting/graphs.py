"""A model cut into networks that take tensors and give named tensors: what is exported of it.

Shapes: B samples, D latent dimensions, M modalities, P private dimensions of each, X the data's shape.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.backbones.base import Decoder
from vaekit.distributions import Flow
from vaekit.errors import VaekitError
from vaekit.exporting.laws import Law, law_of
from vaekit.exporting.names import What
from vaekit.fusions.base import Experts, PrivateFusion
from vaekit.likelihoods.base import Likelihood
from vaekit.models import VAE, Modality, Model, MultimodalVAE
from vaekit.models.subset import SubsetPosterior
from vaekit.observed import Observed
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior

__all__ = ["Graph", "Network", "graphs_of"]

_HOLDS = {
    "vector": "numbers as they are in the data",
    "classes": "classes in one-hot form",
    "binary": "bits, each 0 or 1",
}


class Network(nn.Module):
    """Takes tensors (B, ...) and gives named ones: a base class."""

    def law(self, *inputs: Tensor) -> Law:
        """Return the outputs by name, each with what it is."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name."""
        return {name: value for name, (value, _) in self.law(*inputs).items()}

    def keep_points(self, q: Distribution) -> None:
        """Keep what the mean of a flow is estimated from: it is drawn, and a draw would not be a constant."""
        self.register_buffer("points", q.points if isinstance(q, Flow) else None, persistent=False)


class _Encoder(Network):
    """Samples (B, *X) to q(z|x)."""

    points: Tensor | None

    def __init__(self, encoder: nn.Module, prior: nn.Module, posterior: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.encoder, self.prior, self.posterior = encoder, prior, posterior
        self.keep_points(self._posterior(x))

    def _posterior(self, x: Tensor) -> Distribution:
        q: Distribution = self.posterior(at_least_float32(self.encoder(x)), self.prior())
        return q

    def law(self, *inputs: Tensor) -> Law:
        q, posterior = self._posterior(*inputs), self.posterior
        found = law_of(q, self.points)
        if isinstance(posterior, Posterior) and type(posterior).point is not Posterior.point:
            return {**found, "point": (posterior.point(q), "the latent that stands for q(z|x)")}
        return found


class _FusedEncoder(Network):
    """Samples of every modality, and which of them are there, to q(z|x_S) and the laws of private latents."""

    points: Tensor | None

    def __init__(self, model: MultimodalVAE, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for part in self.model.parts.values():
            del part.decoder, part.likelihood
        self.keep_points(self._posterior(*inputs).shared)

    def _posterior(self, *inputs: Tensor) -> SubsetPosterior:
        *values, available = inputs
        return self.model.encode(Observed(dict(zip(self.model.names, values, strict=True)), available)).posterior()

    def law(self, *inputs: Tensor) -> Law:
        q = self._posterior(*inputs)
        found = law_of(q.shared, self.points, "q(z|x_S)")
        if q.private is None:
            return found
        private = law_of(q.private(found["mean"][0].unsqueeze(0)), name="the private latent of each modality, in order")
        return {**found, **{f"private_{name}": (value.squeeze(0), words) for name, (value, words) in private.items()}}


class _Decoder(Network):
    """Latents (B, D), and private ones (B, P) where there are any, to the mean of p(x|z)."""

    def __init__(self, decoder: Decoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.modality = Modality(nn.Identity(), decoder, likelihood)  # type: ignore[arg-type]

    def law(self, *inputs: Tensor) -> Law:
        return {"mean": (self.modality.decode(torch.cat(inputs, -1)).mean, "the mean of p(x|z)")}


@dataclass(frozen=True)
class Graph:
    """One network that becomes one file.

    Arguments:
        name: The stem of its file.
        kind: Which of the two it is.
        network: From tensors, in the order of `inputs`, to named tensors; all with B in front.
        inputs: What there is to know of each input: `meaning`, and `range` where it has one.
        draw: Makes B samples of the inputs at random, for trial runs.
        about: What else there is to know of it.
    """

    name: str
    kind: Literal["encoder", "decoder"]
    network: Network
    inputs: Mapping[str, Mapping[str, Any]]
    draw: Callable[[int], tuple[Tensor, ...]]
    about: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def graphs_of(model: Model, what: What = "both", values: Mapping[str, str] | None = None) -> list[Graph]:
    """Return what is exported of a model.

    | model | encoders and their inputs | decoders and their inputs |
    |---|---|---|
    | one modality | `encoder`: `x` | `decoder`: `z` |
    | several with a fusion | `encoder`: each modality by name, and `available` | `decoder-<name>`: `z`, and `private` |
    | several without one | `encoder-<name>`: `x` | `decoder-<name>`: `z` |

    Arguments:
        model: The model, on the CPU and in evaluation mode.
        what: Encoders, decoders or both.
        values: For several modalities, what each of them holds: see `vaekit.data.PairedSplit.values`.

    Raises:
        VaekitError: A modality has a name that no file can have, or that of an output.

    Examples:
        >>> import vaekit as vk
        >>> [graph.name for graph in graphs_of(vk.recipe("vae", data="digits").model.eval())]
        ['encoder', 'decoder']
    """
    cut = _Several(model, values or {}) if isinstance(model, MultimodalVAE) else _One(model)
    found = [*(cut.encoders() if what != "decoder" else ()), *(cut.decoders() if what != "encoder" else ())]
    for graph in found:
        # A modality's name may be a stranger's: that of a model from the Hub.
        if not re.fullmatch(r"[\w-]+", graph.name):
            raise VaekitError(f"'{graph.name}' cannot be the name of a file: rename the modality in the data")
    return found


class _One:
    """A model of one modality."""

    def __init__(self, model: VAE) -> None:
        self.model = model
        self.data = _Data(model.likelihood, "image" if len(model.data_shape) == 3 else "vector")

    def encoders(self) -> Iterator[Graph]:
        """Yield the encoder."""
        model = self.model
        yield _encoder("encoder", model.encoder, model.prior, model.posterior, self.data)

    def decoders(self) -> Iterator[Graph]:
        """Yield the decoder."""
        model = self.model
        yield _decoder("decoder", model.decoder, self.data, model.prior)


class _Several:
    """A model of several modalities."""

    def __init__(self, model: MultimodalVAE, values: Mapping[str, str]) -> None:
        self.model = model
        self.data = {name: _Data(part.likelihood, values.get(name, "image")) for name, part in model.parts.items()}

    def encoders(self) -> Iterator[Graph]:
        """Yield the encoder of all modalities, or one of each where nothing joins them."""
        model = self.model
        if isinstance(model.fusion, Experts):
            for (name, part), head in zip(model.parts.items(), model.fusion.heads, strict=True):
                yield _encoder(f"encoder-{name}", part.encoder, model.prior, head, self.data[name])
            return
        network = _FusedEncoder(model, self._draw(2))
        for name in ("available", *network(*self._draw(2))):
            if name in self.data:
                raise VaekitError(f"a modality cannot be called '{name}' in an exported encoder: rename it in the data")
        mask = f"which of {', '.join(self.data)} are there, in this order; what is not may hold anything"
        inputs = {**{name: each.facts for name, each in self.data.items()}, "available": {"meaning": mask}}
        yield Graph("encoder", "encoder", network, inputs, self._draw)

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        return (*(each.draw(count) for each in self.data.values()), torch.rand(count, len(self.data)) < 0.7)

    def decoders(self) -> Iterator[Graph]:
        """Yield the decoder of each modality."""
        private = self.model.private
        dim = private.private_dim if isinstance(private, PrivateFusion) else 0
        for name, part in self.model.parts.items():
            yield _decoder(f"decoder-{name}", part.decoder, self.data[name], self.model.prior, dim)


def _encoder(name: str, encoder: nn.Module, prior: nn.Module, posterior: nn.Module, x: _Data) -> Graph:
    network = _Encoder(encoder, prior, posterior, x.draw(2))
    return Graph(name, "encoder", network, {"x": x.facts}, lambda count: (x.draw(count),))


def _decoder(name: str, decoder: Decoder, x: _Data, prior: Prior, private: int = 0) -> Graph:
    inputs = {"z": {"meaning": "a latent"}}
    if private:
        inputs["private"] = {"meaning": "the modality's private latent, standard normal where nothing is known of it"}

    def draw(count: int) -> tuple[Tensor, ...]:
        z = prior().sample((count,))
        return (z, torch.randn(count, private)) if private else (z,)

    about = {"likelihood": repr(x.likelihood), **{key: value for key, value in x.facts.items() if key == "range"}}
    return Graph(name, "decoder", _Decoder(decoder, x.likelihood), inputs, draw, about)


@dataclass(frozen=True)
class _Data:
    """The samples of one modality."""

    likelihood: Likelihood
    kind: str

    @property
    def facts(self) -> dict[str, Any]:
        """What there is to know of them."""
        if self.kind != "image":
            return {"meaning": _HOLDS[self.kind]}
        low, high = self.likelihood.data_range
        meaning = f"images: {low:g} stands for the pixel 0 and {high:g} for 255, evenly between them"
        return {"meaning": meaning, "range": [low, high]}

    def draw(self, count: int) -> Tensor:
        """Make samples at random."""
        low, high = self.likelihood.data_range
        return low + (high - low) * torch.rand(count, *self.likelihood.data_shape)
