"""The sliders: a picture that follows the knobs of the latent space."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError
from vaekit.exploring import markup
from vaekit.exploring.explorer import Explorer

__all__ = ["QUIETLY", "Sliders", "told"]

#: How events are answered: one at a time, each with the state that the last one left, and without a veil.
QUIETLY: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "run"}

_AT_ONCE = 16

_WORDS = {
    "counts": "Latents are counts.",
    "sphere": "Latents lie on a sphere: all knobs together are brought to length 1 before they are decoded.",
    "one-hot": "Latents are categories: a knob chooses the category of a variable.",
}


def told(function: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """Return a function whose mistakes are told on the page, in the sentence of the command line.

    What is shown then stays as it is, but that a file which was dropped is taken away.

    Arguments:
        function: What answers an event.
        outputs: What it gives values for.
    """
    import gradio as gr

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except VaekitError as error:
            sentence = str(error)
            for given in arguments:
                if isinstance(given, str):  # A file that was dropped has the name that the reader knows.
                    sentence = sentence.replace(given, Path(given).name)
            gr.Warning(sentence)
            kept = [None if isinstance(place, gr.File) else gr.skip() for place in outputs]
            return kept if len(kept) > 1 else kept[0]

    return wrapper


class Sliders:
    """The sliders tab: the values of all knobs, sliders for some of them, and what is decoded.

    Arguments:
        explorer: What asks the run.
        tabs: The tabs of the page, so that another tab can lead here.
    """

    def __init__(self, explorer: Explorer, tabs: Any) -> None:
        import gradio as gr

        self.explorer = explorer
        knobs = explorer.knobs.each
        starts = range(0, len(knobs), _AT_ONCE)
        self.values, self.start = gr.State([]), gr.State([])
        with gr.Row():
            with gr.Column(scale=2, min_width=240, elem_classes="vk-shown"):
                self.shown = gr.HTML(elem_id="decoded", padding=False)
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    buttons = self._buttons()
                self.page = gr.Dropdown(
                    [
                        (f"{first + 1} to {min(first + _AT_ONCE, len(knobs))} of {len(knobs)}", first)
                        for first in starts
                    ],
                    value=0,
                    label="Knobs, those that vary most over the data first",
                    visible=len(knobs) > _AT_ONCE,
                )
                with gr.Column(elem_classes="vk-knobs"):
                    self.sliders = [
                        gr.Slider(knob.low, knob.high, step=knob.step, label=knob.label, interactive=True)
                        for knob in knobs[:_AT_ONCE]
                    ]
                if explorer.knobs.space in _WORDS:
                    gr.HTML(f'<div class="vk">{markup.note(_WORDS[explorer.knobs.space])}</div>', padding=False)
        self.everything = [self.values, self.start, self.shown, self.page, *self.sliders]
        self.arrival = [tabs, *self.everything]
        for button, start in buttons:
            begin = told(lambda start=start: self.begin(start()), self.everything)
            button.click(begin, None, self.everything, **QUIETLY)
        self.page.input(self._turn, [self.values, self.page], self.sliders, **QUIETLY)
        self._listen()

    def _buttons(self) -> list[tuple[Any, Callable[[], Sequence[float]]]]:
        """Return the buttons that start from somewhere, each with where."""
        import gradio as gr

        explorer = self.explorer
        buttons: list[tuple[Any, Callable[[], Sequence[float]]]] = []
        if explorer.has_prior_mean:
            buttons.append((gr.Button("Prior mean", size="sm", min_width=120), explorer.prior_mean))
        buttons.append((gr.Button("Prior draw", size="sm", min_width=120), explorer.prior_draw))
        sample = gr.Button("Validation sample", size="sm", min_width=120)
        buttons.append((sample, lambda: explorer.values_of(explorer.random_sample())))
        self.reset = gr.Button("Reset", size="sm", min_width=120)
        return buttons

    def _listen(self) -> None:
        self.reset.click(self.begin, self.start, self.everything, **QUIETLY)
        for slot, slider in enumerate(self.sliders):
            slider.input(
                functools.partial(self._move, slot),
                [self.values, self.page, slider],
                [self.values, self.shown],
                **QUIETLY,
                trigger_mode="always_last",
            )

    def begin(self, values: Sequence[float] | None = None) -> list[Any]:
        """Return what `everything` shows at values of all knobs, where the page begins if not given."""
        values = list(values or self.explorer.first())
        return [values, values, self._decode(values), 0, *self._turn(values, 0)]

    def arrive(self, values: Sequence[float]) -> list[Any]:
        """Return what `arrival` shows: this tab, at values of all knobs."""
        import gradio as gr

        return [gr.update(selected="sliders"), *self.begin(values)]

    def _move(self, slot: int, values: list[float], first: int, value: float | None) -> list[Any]:
        """Return the values and what they decode to, after one slider was moved."""
        values = [*values]
        if value is not None:  # The box beside a slider may be empty for a moment.
            values[first + slot] = value
        return [values, self._decode(values)]

    def _turn(self, values: Sequence[float], first: int) -> list[Any]:
        """Return the sliders for the knobs from number `first` on."""
        import gradio as gr

        updates = []
        for number in range(first, first + len(self.sliders)):
            if number >= len(values):
                updates.append(gr.update(visible=False))
                continue
            knob = self.explorer.knobs.each[number].reaching(values[number])
            updates.append(
                gr.update(
                    minimum=knob.low,
                    maximum=knob.high,
                    step=knob.step,
                    label=knob.label,
                    value=knob.rounded(values[number]),
                    visible=True,
                )
            )
        return updates

    def _decode(self, values: Sequence[float]) -> str:
        return markup.samples(self.explorer.decode(values), self.explorer.ranges)
