"""The page: the tabs that suit a run."""

from __future__ import annotations

from typing import Any

from vaekit.exploring import markup
from vaekit.exploring.explorer import Explorer
from vaekit.exploring.modalities import Modalities
from vaekit.exploring.pictures import Pictures
from vaekit.exploring.sliders import QUIETLY, Sliders
from vaekit.exploring.tabs import generation_tab, picture_tab, walk_tab
from vaekit.multimodal_run import MultimodalRun
from vaekit.run import Run

__all__ = ["build_page", "explorer_of"]


def explorer_of(run: Run) -> Explorer:
    """Return what asks a run: of images, of several modalities, or of anything else."""
    if isinstance(run, MultimodalRun):
        return Modalities(run)
    return Pictures(run) if len(run.model.data_shape) == 3 else Explorer(run)


def build_page(explorer: Explorer) -> Any:
    """Return the page as a `gradio.Blocks`."""
    import gradio as gr

    with gr.Blocks(title=f"vaekit explore: {explorer.title}", analytics_enabled=False) as page:
        gr.HTML(
            f'<div class="vk"><h1>{markup.escape(explorer.title)}</h1>{markup.note(explorer.about)}</div>',
            padding=False,
        )
        with gr.Tabs(selected="sliders") as tabs:
            with gr.Tab("Sliders", id="sliders"):
                sliders = Sliders(explorer, tabs)
            if isinstance(explorer, Pictures):
                with gr.Tab("Picture", id="picture"):
                    picture_tab(explorer, sliders)
                with gr.Tab("Walk", id="walk"):
                    walk_tab(explorer)
            if isinstance(explorer, Modalities):
                with gr.Tab("Generate", id="generate"):
                    generation_tab(explorer)
        page.load(sliders.begin, None, sliders.everything, **QUIETLY)
    return page
