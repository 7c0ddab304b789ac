"""The other tabs: what the model makes of a picture, walks between two, and generation of modalities.

An event answers for all that it changes: gradio loses answers where one event starts several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from vaekit.exploring import markup
from vaekit.exploring.modalities import Modalities
from vaekit.exploring.pictures import KL, Pictures
from vaekit.exploring.sliders import QUIETLY, Sliders, told

__all__ = ["generation_tab", "picture_tab", "walk_tab"]

_STEPS, _EVERY = 17, 2  # Of a walk: its pictures, and which of them the strip shows.
_BARS = 16


def picture_tab(explorer: Pictures, sliders: Sliders) -> None:
    """Fill a tab with what the model makes of one picture: reconstruction, draws, KL, and a mixture's components."""
    import gradio as gr

    with gr.Row(elem_classes="vk-level"):
        with gr.Column(min_width=240):
            source = _Source(explorer, "A picture")
        with gr.Column(min_width=240):
            start = gr.Button("Use as start of the sliders", size="sm", visible=False)
            reconstructed = gr.HTML(elem_id="reconstruction", padding=False)
    about = gr.HTML(elem_id="about-picture", padding=False)
    show, components = _components(explorer, sliders, source.x) if explorer.component_count else (lambda x: [], [])

    def look(x: Tensor) -> list[Any]:
        drawn = [_figure(explorer, image, f"draw {number + 1}") for number, image in enumerate(explorer.draws(x))]
        reconstruction = _figure(explorer, explorer.reconstruct(x), "its reconstruction", "its reconstruction")
        said = _kl(explorer.kl(x), "variable" if explorer.knobs.categories else "dimension")
        return [
            gr.update(visible=True),
            markup.gallery([reconstruction], "large"),
            markup.section("Draws from its posterior, decoded", markup.gallery(drawn)) + said,
            *show(x),
        ]

    source.listen(look, [], [start, reconstructed, about, *components])
    start.click(lambda x: sliders.arrive(explorer.values_of(x)), source.x, sliders.arrival, **QUIETLY)


def _kl(kl: KL, what: str) -> str:
    """Return what there is to say of a KL, with bars for its largest dimensions, or variables."""
    number = "" if kl.total is None else f"{kl.total:.2f} nats, " if math.isfinite(kl.total) else "infinite, "
    body = markup.note(f"{number}{kl.sentence}")
    if kl.by_unit is not None:
        count = len(kl.by_unit)
        largest = kl.by_unit.topk(min(_BARS, count))
        labels = [f"{what} {number}" for number in largest.indices.tolist()]
        of = f"nats, the {_BARS} largest of {count} {what}s" if count > _BARS else f"nats by {what}"
        body += markup.bars(largest.values.tolist(), labels, of)
    return markup.section("KL from its posterior to the prior", body)


def _components(explorer: Pictures, sliders: Sliders, x: Any) -> tuple[Callable[[Tensor], list[Any]], list[Any]]:
    """Place the components of a picture's mixture posterior, and what draws a chosen one.

    Returns:
        What shows those of a new picture, and for which outputs.
    """
    import gradio as gr

    shown = gr.HTML(elem_id="components", padding=False)
    chosen = gr.Radio([], label="Component", visible=False)
    with gr.Row():
        again = gr.Button("Draw again", size="sm", visible=False)
        start = gr.Button("Use its mean as start of the sliders", size="sm", visible=False)
    drawn = gr.HTML(elem_id="component-draws", padding=False)

    def draw(x: Tensor, component: int) -> str:
        images = enumerate(explorer.component_draws(x, component))
        figures = [_figure(explorer, image, f"draw {number + 1}") for number, image in images]
        return markup.section(f"Draws from component {component + 1}, decoded", markup.gallery(figures))

    def show(x: Tensor) -> list[Any]:
        weights, means = explorer.components(x)
        labels = [f"{number + 1}: {weight:.1%}" for number, weight in enumerate(weights.tolist())]
        figures = [
            _figure(explorer, mean, f"mean of {label}", label) for mean, label in zip(means, labels, strict=True)
        ]
        title = "Components of its posterior: weights, and what their means decode to"
        heaviest = int(weights.argmax())
        choices = [(label, number) for number, label in enumerate(labels)]
        seen = gr.update(visible=True)
        radio = gr.update(choices=choices, value=heaviest, visible=True)
        return [markup.section(title, markup.gallery(figures)), radio, seen, seen, draw(x, heaviest)]

    gr.on([chosen.input, again.click], draw, [x, chosen], drawn, **QUIETLY)
    start.click(
        lambda x, component: sliders.arrive(explorer.component_values(x, component)),
        [x, chosen],
        sliders.arrival,
        **QUIETLY,
    )
    return show, [shown, chosen, again, start, drawn]


def walk_tab(explorer: Pictures) -> None:
    """Fill a tab with the walk between two pictures."""
    import gradio as gr

    pictures = gr.State(None)
    with gr.Row(elem_classes="vk-level"):
        with gr.Column(min_width=220):
            first = _Source(explorer, "The start")
        with gr.Column(min_width=220):
            position = gr.Slider(0.0, 1.0, value=0.5, step=1 / (_STEPS - 1), label="Position on the way", visible=False)
            here = gr.HTML(elem_id="here", padding=False)
        with gr.Column(min_width=220):
            second = _Source(explorer, "The end")
    strip = gr.HTML(elem_id="strip", padding=False)

    def walk(start: Tensor | None, end: Tensor | None, position: float | None) -> list[Any]:
        if start is None or end is None:
            return [None, "", "", gr.update(visible=False)]
        pictures = explorer.walk(start, end, _STEPS)
        shares = [f"{index / (_STEPS - 1):.0%}" for index in range(0, _STEPS, _EVERY)]
        along = [
            _figure(explorer, image, f"{share} of the way", share)
            for image, share in zip(pictures[::_EVERY], shares, strict=True)
        ]
        return [pictures, stand(pictures, position), markup.gallery(along), gr.update(visible=True)]

    def stand(pictures: Tensor, position: float | None) -> str:
        position = position or 0.0  # The box beside a slider may be empty for a moment.
        image = pictures[round(position * (_STEPS - 1))]
        return markup.gallery([_figure(explorer, image, "picture on the way", f"{position:.0%} of the way")], "large")

    outputs = [pictures, here, strip, position]
    first.listen(walk, [second.x, position], outputs)
    second.listen(lambda end, start, position: walk(start, end, position), [first.x, position], outputs)
    position.input(stand, [pictures, position], here, **QUIETLY, trigger_mode="always_last")


def generation_tab(explorer: Modalities) -> None:
    """Fill a tab with generation of all modalities from some."""
    import gradio as gr

    given = gr.State({})
    places, shown = [], []
    with gr.Row():
        for name in explorer.names:
            with gr.Column(min_width=220):
                if len(explorer.shapes[name]) == 3:
                    places.append(gr.File(label=f"The modality {name}", file_types=["image"], height=130))
                else:
                    words = "numbers parted by commas, or the number of a class; then Enter"
                    places.append(gr.Textbox(label=f"The modality {name}", placeholder=words, max_lines=1))
                shown.append(gr.HTML(padding=False))
    random = gr.Button("Random validation sample", size="sm")
    chosen = gr.CheckboxGroup(list(explorer.names), label="Generate from")
    generate = gr.Button("Generate", variant="primary")
    drawn = gr.HTML(elem_id="generated", padding=False)

    def show(name: str, value: Tensor) -> str:
        return markup.samples({name: value[0]}, explorer.ranges)

    def give(name: str, given: dict[str, Tensor], chosen: list[str], value: str | None) -> list[Any]:
        x = explorer.read(name, value or "")
        # The place is cleared for the next one.
        return [{**given, name: x}, sorted({*chosen, name}), show(name, x), None]

    def draw_sample() -> list[Any]:
        x = explorer.sample_of_each()
        return [x, *(show(name, x[name]) if name in x else "" for name in explorer.names)]

    def run(given: dict[str, Tensor], chosen: list[str]) -> str:
        rows = []
        for name, values in explorer.generate(given, chosen).items():
            draws = [
                markup.sample(name, value, explorer.ranges[name], f"draw {number + 1}")
                for number, value in enumerate(values)
            ]
            rows.append(markup.section(name, markup.gallery(draws, "small" if values.dim() == 4 else "medium")))
        return "".join(rows)

    for name, place, seen in zip(explorer.names, places, shown, strict=True):
        outputs = [given, chosen, seen, place]
        arrives = place.upload if isinstance(place, gr.File) else place.submit
        answer = told(lambda *arguments, name=name: give(name, *arguments), outputs)
        arrives(answer, [given, chosen, place], outputs, **QUIETLY)
    random.click(told(draw_sample, [given, *shown]), None, [given, *shown], **QUIETLY)
    generate.click(told(run, [drawn]), [given, chosen], drawn, **QUIETLY)


class _Source:
    """Where a picture comes from: a file that is dropped, or a random validation image.

    Arguments:
        explorer: What reads it.
        label: What the picture is.
    """

    def __init__(self, explorer: Pictures, label: str) -> None:
        import gradio as gr

        self.explorer = explorer
        self.x = gr.State(None)
        self.dropped = gr.File(label=label, file_types=["image"], height=130)
        self.random = gr.Button("Random validation image", size="sm")
        self.seen = gr.HTML(padding=False)

    def listen(self, function: Callable[..., list[Any]], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Give `function(x, *inputs)` to the outputs with every new picture x."""
        caption = "the picture as the model sees it"

        def take(x: Tensor, *others: Any) -> list[Any]:
            seen = markup.gallery([_figure(self.explorer, x[0], caption, caption)], "large")
            # The place is cleared for the next one.
            return [x, None, seen, *function(x, *others)]

        everything = [self.x, self.dropped, self.seen, *outputs]
        read = told(lambda file, *others: take(self.explorer.read(file), *others), everything)
        draw = told(lambda *others: take(self.explorer.random_sample().cpu(), *others), everything)
        self.dropped.upload(read, [self.dropped, *inputs], everything, **QUIETLY)
        self.random.click(draw, list(inputs), everything, **QUIETLY)


def _figure(explorer: Pictures, image: Tensor, alt: str, caption: str = "") -> str:
    return markup.picture(image, explorer.ranges[""], alt, caption)
