"""The loader of a training run: whole batches, gathered, scaled and flipped without a Python loop over samples."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vaekit.data.dataset import Split
from vaekit.errors import VaekitError

__all__ = ["Batches", "mixed_seed"]


class Batches:
    """Batches of one split on one rank, in an order that depends on `(seed, epoch)` only.

    With G = batch_size * world, the global batch b of an epoch is `permutation[b * G : (b + 1) * G]` and rank r holds
    its r-th contiguous part, so that all ranks together see what one rank with batch size G would see, flips included.
    Both the permutation and the flips have generators of their own: nothing depends on the global random state, and
    starting at a later batch gives the same batches as running up to it.

    Arguments:
        split: The samples.
        batch_size: Samples per batch and rank.
        data_range: What 0 and 255 become, e.g. (0.0, 1.0); None keeps 0 to 255. Float samples are never scaled.
        device: Where the batches are wanted.
        shuffle: A new order in every epoch; otherwise the order of the split.
        flip: Mirror each image left to right with probability 1/2.
        binarize: Draw each grey value anew as black or white, white with a probability equal to the grey value.
        stream: Tells the binary draws of batches with one seed apart: those of several modalities.
        seed: Seed of order, flips and binary draws.
        rank: This process.
        world: The number of processes.
        drop_last: Leave out the samples that do not fill a global batch. Otherwise the last batch is smaller, shared
            out among the ranks as evenly as can be (a rank may get an empty batch).
        even: Make all batches a little smaller instead of the last one much, so that they have the same number of
            samples, give or take one.
        resident: Keep the whole split on the device, as uint8 for images. Otherwise batches are gathered in memory
            and, where the device is not the CPU or the split is memory-mapped, one batch ahead in a thread.

    Raises:
        VaekitError: `drop_last` with fewer samples than one global batch or with `even`, flips of samples that are not
            images, binary draws of samples that have no grey values, or a split that does not fit on the device.

    Examples:
        >>> import torch
        >>> split = Split(torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1))
        >>> batches = Batches(split, 4, data_range=None, device="cpu", shuffle=False, drop_last=False)
        >>> [batch.flatten().tolist() for batch in batches.epoch(0)]
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        flip: bool = False,
        binarize: bool = False,
        stream: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        even: bool = False,
        resident: bool = False,
    ) -> None:
        if batch_size < 1 or seed < 0:
            raise VaekitError(f"batch_size must be 1 or more and seed 0 or more, not {batch_size} and {seed}")
        if drop_last and batch_size * world > len(split):
            ranks = f" on {world} devices" if world > 1 else ""
            raise VaekitError(
                f"batch_size {batch_size}{ranks} needs {batch_size * world:,} samples, but the split has "
                f"{len(split):,}: lower batch_size"
            )
        if even and drop_last:
            raise VaekitError("even is for batches that leave nothing out: set drop_last to false")
        if flip and len(split.shape) != 3:
            raise VaekitError(f"flip is for images, and these samples have shape {split.shape}")
        self.split = split
        self.batch_size = batch_size
        self.data_range = data_range
        self.device = torch.device(device)
        self.shuffle = shuffle
        if binarize and split.dtype != torch.uint8:
            raise VaekitError("binarize is for grey values from 0 to 255: leave data.binarize out for these samples")
        self.flip = flip
        self.binarize = binarize
        self.stream = stream
        self.seed = seed
        self.rank = rank
        self.world = world
        self.drop_last = drop_last
        self.even = even
        self._hold(resident)

    def _hold(self, resident: bool) -> None:
        """Take the samples into the memory that they are gathered from."""
        # Rows as flat vectors: gathering them is one memory copy each.
        self._rows = self.split.samples.flatten(1)
        if resident:
            try:
                self._rows = self._rows.to(self.device, copy=self.split.mapped)
            except torch.OutOfMemoryError as error:
                size = self._rows.nbytes / 1e9
                raise VaekitError(
                    f"the data ({size:.1f} GB) do not fit on {self.device}: set resident to false"
                ) from error
        self._ahead = self._rows.device.type != self.device.type or (self.split.mapped and not resident)

    def __len__(self) -> int:
        """The number of batches in an epoch, the same on every rank."""
        group = self.batch_size * self.world
        return len(self.split) // group if self.drop_last else -(-len(self.split) // group)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield the batches of an epoch from number `start` on: float32 of shape (B, *shape) on the device."""
        order = self._order(epoch)
        if not self._ahead:
            order = order.to(self._rows.device, non_blocking=True)
            for batch in range(start, len(self)):
                yield self._finish(self._rows.index_select(0, self._share(order, batch)), epoch, batch)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = [self._read(reader, order, batch) for batch in range(start, min(start + 1, len(self)))]
            for batch in range(start, len(self)):
                rows = coming.pop().result()
                if batch + 1 < len(self):
                    coming.append(self._read(reader, order, batch + 1))
                yield self._finish(rows.to(self.device, non_blocking=True), epoch, batch)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.split))
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        return torch.randperm(len(self.split), generator=generator)

    def _share(self, order: Tensor, batch: int) -> Tensor:
        """The row numbers of this rank's part of a global batch."""
        first, last = self._bounds(batch)
        return order[first:last].tensor_split(self.world)[self.rank]

    def _bounds(self, batch: int) -> tuple[int, int]:
        """The places in the order at which a global batch begins and ends."""
        if self.even:
            return batch * len(self.split) // len(self), (batch + 1) * len(self.split) // len(self)
        group = self.batch_size * self.world
        return batch * group, min((batch + 1) * group, len(self.split))

    def _read(self, reader: ThreadPoolExecutor, order: Tensor, batch: int) -> Future[Tensor]:
        """Gather a batch in the thread, into memory from which the device can copy by itself."""
        index = self._share(order, batch)
        # Allocated here, because a new thread would pin memory through the first GPU, whichever one is ours.
        size = (len(index), self._rows.shape[1])
        rows = torch.empty(size, dtype=self._rows.dtype, pin_memory=self.device.type == "cuda")
        return reader.submit(self._gather, index, rows)

    def _gather(self, index: Tensor, rows: Tensor) -> Tensor:
        if not self.split.mapped:
            return torch.index_select(self._rows, 0, index, out=rows)
        # In ascending order, so that the file is read forwards.
        ascending, place = index.sort()
        return rows.index_copy_(0, place, self._rows.index_select(0, ascending))

    def _finish(self, rows: Tensor, epoch: int, batch: int) -> Tensor:
        """Give the rows their shape, flip and scale them, on the device."""
        samples = rows.view(len(rows), *self.split.shape)
        if self.flip:
            samples = self._flipped(samples, epoch, batch)
        if samples.dtype != torch.uint8:
            return samples.to(torch.float32)
        scaled = samples.to(torch.float32)
        if self.binarize:
            draws = self._draws(epoch, batch, samples.shape[1:])
            scaled = 255.0 * (255.0 * draws < scaled)
        if self.data_range is None:
            return scaled
        low, high = self.data_range
        return scaled.mul_((high - low) / 255).add_(low)

    def _flipped(self, samples: Tensor, epoch: int, batch: int) -> Tensor:
        chosen = (self._draws(epoch, batch) < 0.5).view(-1, 1, 1, 1)
        mirrored = samples.flip(-1)
        if samples.dtype != torch.uint8:
            return torch.where(chosen, mirrored, samples)
        # Selecting by bits: x ^ ((x ^ mirrored) & mask). torch.where on uint8 is several times slower on a CPU.
        return mirrored.bitwise_xor_(samples).bitwise_and_(chosen.to(torch.uint8).neg()).bitwise_xor_(samples)

    def _draws(self, epoch: int, batch: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Return uniform numbers, one or as many as `shape` for each sample of this rank's part of a batch."""
        # A shape in the seed tells the streams of flips and of binary draws apart.
        words = (*shape[:1], self.stream) if shape and self.stream else shape[:1]
        generator = torch.Generator(self.device).manual_seed(mixed_seed(self.seed, epoch, batch, *words))
        # One draw for the global batch: every rank makes the same one and takes its part.
        first, last = self._bounds(batch)
        draws = torch.rand(last - first, *shape, generator=generator, device=self.device, dtype=torch.float32)
        return draws.tensor_split(self.world)[self.rank]


def mixed_seed(*numbers: int) -> int:
    """Hash small numbers into a seed of 64 bits, so that neighbouring epochs and batches have unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
