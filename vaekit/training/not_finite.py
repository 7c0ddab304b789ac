"""What to do about a step that is not finite: name the tensor, keep the batch, leave the step out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.files import save_tensors
from vaekit.objectives.elbo import Phase
from vaekit.observed import Observed
from vaekit.training.meter import NotFiniteError
from vaekit.training.session import Session
from vaekit.training.sharded import any_rank, local

__all__ = ["Guard", "find_tensor", "keep_batch"]

#: So many steps left out one after another end the run: what is wrong is not the batches.
MOST_IN_A_ROW = 20
#: So many batches are kept, the first ones.
MOST_KEPT = 10

Replay = Callable[[Any], Iterator[Phase]]


class Guard:
    """Leaves out updates of which a term or a gradient is not finite; reads the device once a phase for it.

    Arguments:
        session: The state of the run.
        replay: Yields the phases of a step without updates.
    """

    def __init__(self, session: Session, replay: Replay) -> None:
        self.session, self.replay = session, replay
        self._rng: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def begin(self) -> None:
        """Remember what a step that is left out must not change: the statistics of normalisations."""
        self._rng = _random_state(self.session.fabric.device)
        parts = (self.session.model, self.session.objective)
        self._buffers = [(buffer, buffer.clone()) for part in parts for buffer in part.buffers()]

    def refuse(self, phase: str, terms: Mapping[str, Tensor], x: Tensor | Observed) -> str:
        """Return why the update of a phase must not be, `""` where it may.

        Raises:
            NotFiniteError: It is the last of too many in a row.
        """
        session = self.session
        gradients = [local(p.grad) for p in session.optimizers[phase].parameters if p.grad is not None]
        values = [*terms.values(), *torch._foreach_norm(gradients)]
        bad = ~torch.stack([value.detach().float() for value in values]).isfinite()
        if not any(any_rank(bad)):
            if phase == "vae":
                session.skipped_in_a_row = 0
            return ""
        session.skipped += 1
        session.skipped_in_a_row += 1
        tensor = find_tensor(session, self.replay, x, phase, self._rng) or "a gradient"
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        where = keep_batch(session, x, session.step, {"phase": phase, "tensor": tensor})
        step = f"step {session.step:,}"
        if session.skipped_in_a_row > MOST_IN_A_ROW:
            raise NotFiniteError(
                f"{MOST_IN_A_ROW} steps in a row were not finite, the last for {tensor} at {step}: lower "
                "trainer.optimizer.lr or set trainer.clip, then start again"
            )
        return f"{step} is left out: {tensor} is not finite{where}"


def find_tensor(session: Session, replay: Replay, x: Any, phase: str | None, rng: list[Tensor] | None = None) -> str:
    """Make a step again and return the first tensor that is not finite, in words; `""` where all are.

    Arguments:
        session: The state of the run.
        replay: Yields the phases of the step.
        x: Its batch.
        phase: The phase to look at; `None` for the first in which there is one.
        rng: The random state at its start; `None` for whatever it is now.
    """
    for name, values in _tensors(x).items():
        if values.is_floating_point() and not values.isfinite().all():
            return f"the batch ({name})"
    modules = session.objective.modules_by_phase(session.model)
    device = session.fabric.device
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager"),
        _watching(modules) as outputs,
    ):
        if rng is not None:
            _set_random_state(rng, device)
        for made in replay(x):
            if phase is not None and made.name != phase:
                continue
            if outputs:
                return f"the output of {outputs[0]}"
            for term, value in made.terms.items():
                if term != "loss" and not value.isfinite().all():
                    return f"the term '{term}'"
            parameters = dict(modules[made.name].named_parameters())
            wanted = {name: p for name, p in parameters.items() if p.requires_grad}
            # The last one in the order of the forward pass is the first that the backward pass meets.
            gradients = torch.autograd.grad(made.loss, list(wanted.values()), retain_graph=True, allow_unused=True)
            bad = [name for name, g in zip(wanted, gradients, strict=True) if g is not None and not g.isfinite().all()]
            if bad:
                more = f" (and of {len(bad) - 1} more)" if len(bad) > 1 else ""
                return f"the gradient of {bad[-1]}{more}"
    return ""


def keep_batch(session: Session, x: Tensor | Observed, step: int, found: Mapping[str, str]) -> str:
    """Keep the batch of a step in the run directory, of this rank; return the tail of a sentence that says where."""
    if session.out is None:
        return ""
    rank = f"-rank-{session.fabric.global_rank}" if session.fabric.world_size > 1 else ""
    path = session.out / "not_finite" / f"step-{step:08d}{rank}.safetensors"
    if not path.exists() and len(list(path.parent.glob(f"step-*{rank}.safetensors"))) >= MOST_KEPT:
        return ""
    path.parent.mkdir(exist_ok=True)
    save_tensors(path, _tensors(x), {"vaekit": json.dumps({"step": step, **found})})
    return f"; its batch is kept in {path}"


def _tensors(x: Tensor | Observed) -> dict[str, Tensor]:
    if isinstance(x, Observed):
        return {**x.values, "available": x.available}
    return {"x": x}


@contextmanager
def _watching(modules: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Give a list into which the names of layers go whose outputs are not finite, in the order of the forward pass."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
                found.append(name)

        return look

    hooks = [
        layer.register_forward_hook(watch(f"{name} ({type(layer).__name__})"))
        for module in modules.values()
        for name, layer in module.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
