"""The HTML that the page is made of. Pictures are data URIs: none is ever a file, and none is fetched."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from torch import Tensor

from vaekit.reporting.images import to_uint8
from vaekit.reporting.page import data_uri, escape, figure

__all__ = ["STYLE", "bars", "gallery", "note", "picture", "sample", "samples", "section"]

#: The style sheet of the page, on top of gradio's own.
STYLE = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important;
  overflow: clip visible !important; }
.vk h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
.vk h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
.vk p { margin: .2rem 0; }
.vk .quiet, .vk figcaption, .vk caption { color: var(--neutral-500); font-size: .9rem; }
.dark .vk .quiet, .dark .vk figcaption, .dark .vk caption { color: var(--neutral-400); }
.vk figure { margin: 0; min-width: 0; }
.vk figure img { display: block; width: 100%; height: auto; border-radius: 4px;
  border: 1px solid var(--border-color-primary); }
.vk figcaption { margin-top: .25rem; overflow-wrap: anywhere; }
.vk .grain img { image-rendering: pixelated; }
.vk .large { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 200px), 1fr)); gap: .8rem;
  max-width: 380px; }
.vk .small { display: grid; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: .6rem; }
.vk .medium { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); gap: 1rem; }
.vk table, .vk tr, .vk td, .vk th { border: 0 !important; }
.vk table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; margin: 0; }
.vk caption { text-align: left; caption-side: top; padding: .2rem 0; }
.vk td, .vk th { padding: .1rem .5rem .1rem 0 !important; text-align: left; font-weight: 400; white-space: nowrap; }
.vk td.bar { width: 99%; }
.vk td.bar div { height: .75rem; min-width: 1px; border-radius: 2px; background: var(--primary-500); }
.vk td.bar div.below { background: var(--neutral-400); }
.vk td.number { text-align: right; padding-right: 0; }
.vk-knobs .form { display: grid !important; gap: 0 !important;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.gradio-container .reset-button { display: none !important; }
.vk-level { align-items: flex-end !important; }
.vk-shown .large { max-width: none; }
.vk-shown { position: sticky !important; top: 0; padding-top: .5rem; align-self: flex-start; z-index: 100; }
@media (max-width: 700px) {
  .vk-shown { background: var(--body-background-fill); padding-bottom: .4rem; max-height: 45vh; overflow-y: auto; }
  .vk-shown .large { max-width: 190px; margin: 0 auto; }
  .vk .small { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); }
}
"""

_GRAIN = 96  # Pictures of fewer pixels a side are enlarged as squares, not blurred.
_MOST = 64


def note(text: str) -> str:
    """Return a quiet sentence."""
    return f'<p class="quiet">{escape(text)}</p>'


def section(title: str, body: str) -> str:
    """Return a part of a tab under a title; `body` is HTML already."""
    return f'<section class="vk"><h3>{escape(title)}</h3>{body}</section>'


def picture(image: Tensor, data_range: tuple[float, float], alt: str, caption: str = "") -> str:
    """Return an image (1 or 3, H, W) as a figure."""
    pixels = to_uint8(image, data_range).permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    shown = figure(data_uri(buffer.getvalue(), "png"), alt, caption)
    return f'<div class="grain">{shown}</div>' if max(image.shape) < _GRAIN else shown


def gallery(figures: Iterable[str], size: str = "small") -> str:
    """Return figures side by side, `"small"` or `"large"`."""
    return f'<div class="vk"><div class="{size}">{"".join(figures)}</div></div>'


def bars(values: Sequence[float], labels: Sequence[str], caption: str = "") -> str:
    """Return numbers as bars, one below the other; those below zero in grey.

    Arguments:
        values: The numbers.
        labels: What each of them is.
        caption: What all of them are.
    """
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="bar">'
        f'<div{" class=below" if value < 0 else ""} style="width: {100 * abs(value) / largest:.1f}%"></div></td>'
        f'<td class="number">{_text(value)}</td></tr>'
        for value, label in zip(values, labels, strict=True)
    )
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="vk"><table>{head}{rows}</table></div>'


def sample(name: str, value: Tensor, data_range: tuple[float, float], caption: str = "") -> str:
    """Return one sample: an image as a figure, anything else as bars, the first 64 numbers of it."""
    if _is_image(value):
        return picture(value, data_range, caption or name or "decoded picture", caption)
    numbers = value.flatten().tolist()
    cut = f" (the first {_MOST} of {len(numbers)} numbers)" if len(numbers) > _MOST else ""
    return bars(numbers[:_MOST], [str(index) for index in range(len(numbers))][:_MOST], f"{caption}{cut}")


def samples(decoded: Mapping[str, Tensor], ranges: Mapping[str, tuple[float, float]]) -> str:
    """Return one sample of each modality, with its name."""
    return gallery((sample(name, value, ranges[name], name) for name, value in decoded.items()), "large")


def _is_image(value: Tensor) -> bool:
    return value.dim() == 3 and value.shape[0] in (1, 3)


def _text(value: float) -> str:
    if 0.0 < abs(value) < 5e-4:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 100.0 else f"{value:.4g}"
