"""One multimodal batch: the values of each modality, and which of them are there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["Observed"]


class Observed:
    """The values of M modalities for B samples, and which of them are available.

    What stands in the place of a modality that is not available is set to zero here, NaN included: nothing that is
    computed from an `Observed` depends on it.

    A plain class: engines that wrap modules walk through dictionaries and dataclasses and copy them.

    Arguments:
        values: Modality to values (B, *shape), in the model's order of modalities.
        available: Whether each modality of each sample is there, bool of shape (B, M); `None` where all are.

    Raises:
        VaekitError: No modality at all, modalities of different lengths, or a mask of another shape.

    Examples:
        >>> x = Observed({"image": torch.ones(2, 1, 8, 8), "label": torch.ones(2, 10)},
        ...              torch.tensor([[True, True], [True, False]]))
        >>> len(x), x.names, x.values["label"].sum(1).tolist()
        (2, ('image', 'label'), [10.0, 0.0])
    """

    def __init__(self, values: Mapping[str, Tensor], available: Tensor | None = None) -> None:
        # Sizes, not `len`: of a model that is exported they are symbols.
        lengths = {name: value.shape[0] for name, value in values.items()}
        if not lengths:
            raise VaekitError("a multimodal batch needs one modality or more")
        first = next(iter(values.values()))
        count = first.shape[0]
        if any(length != count for length in lengths.values()):
            found = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise VaekitError(f"the modalities have different numbers of samples ({found}): give one value a sample")
        self.names = tuple(values)
        self.complete = available is None
        if available is None:
            available = torch.ones(count, len(lengths), dtype=torch.bool, device=first.device)
        elif available.shape != (count, len(lengths)):
            raise VaekitError(
                f"the availability of {count:,} samples of {len(lengths)} modalities has the shape "
                f"({count}, {len(lengths)}), not {tuple(available.shape)}"
            )
        else:
            values = {
                name: torch.where(there.view(-1, *[1] * (value.dim() - 1)), value, 0.0)
                for (name, value), there in zip(values.items(), available.unbind(1), strict=True)
            }
        self.values = dict(values)
        self.available = available

    def __len__(self) -> int:
        return len(self.available)

    def __getitem__(self, rows: slice | Tensor) -> Observed:
        """Return some of the samples."""
        return self._with({name: value[rows] for name, value in self.values.items()}, self.available[rows])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in self.values.items())
        return f"Observed({len(self):,} x {shapes})"

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.available.device

    def to(self, device: torch.device | str) -> Observed:
        """Return the batch on another device."""
        return self._with({name: value.to(device) for name, value in self.values.items()}, self.available.to(device))

    def only(self, *names: str) -> Observed:
        """Return the batch with no modality available but these.

        Raises:
            VaekitError: There is no such modality.

        Examples:
            >>> Observed({"a": torch.ones(1, 2), "b": torch.ones(1, 3)}).only("b").available.tolist()
            [[False, True]]
        """
        if unknown := [name for name in names if name not in self.names]:
            raise VaekitError(f"there is no modality '{unknown[0]}': use {', '.join(self.names)}")
        chosen = torch.tensor([name in names for name in self.names], device=self.device)
        return Observed(self.values, self.available & chosen)

    def _with(self, values: Mapping[str, Tensor], available: Tensor) -> Observed:
        return Observed(values, None if self.complete else available)
