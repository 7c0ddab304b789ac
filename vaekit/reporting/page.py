"""The pieces that a self-contained HTML page is made of."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["details", "embed_file", "escape", "figure", "flatten", "notice", "page", "table", "themed"]

_SMALL = 300_000  # Pictures up to so many bytes are embedded as they are.

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #1f2328; --quiet: #59636e; --line: #d0d7de;
  --accent: #0060a8; --warn: #9a4a00; --warn-card: #fff4e5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --card: #161b22; --ink: #e6edf3; --quiet: #9aa4ae; --line: #30363d; --accent: #6cb6ff;
    --warn: #ffb866; --warn-card: #2d2111; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; color: var(--quiet); font-weight: 600; }
p { margin: .4rem 0; max-width: 76ch; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; }
.tiles dt { color: var(--quiet); font-size: .82rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; line-height: 1.3; }
.tiles small { display: block; font-size: .8rem; font-weight: 400; color: var(--quiet); }
.notice { border-left: 4px solid var(--warn); background: var(--warn-card); padding: .6rem .9rem; margin: .8rem 0;
  border-radius: 0 6px 6px 0; max-width: none; }
.large { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 1.2rem; }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(220px, 420px); gap: 1rem; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 1.2rem; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 220px), 1fr)); gap: 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } thead th { color: var(--quiet); font-size: .88em; }
th, td { overflow-wrap: break-word; } .number { text-align: right; } td.number { white-space: nowrap; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; }
@media (max-width: 480px) { table { font-size: .82rem; } th, td { padding-right: .45rem; } }
summary { cursor: pointer; color: var(--accent); padding: .4rem 0; }
"""


def escape(text: Any) -> str:
    """Return text as HTML shows it, whatever it holds."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page; `body` is HTML already. Its policy forbids the browser to load anything."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def notice(text: str) -> str:
    """Return a sentence that must not be missed."""
    return f'<p class="notice" role="note">{escape(text)}</p>'


def figure(source: str, alt: str, caption: str = "", dark: str = "") -> str:
    """Return a figure of a data URI, with another one for dark pages where there is one."""
    image = f'<img src="{source}" alt="{escape(alt)}">'
    if dark:
        image = f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">{image}</picture>'
    return f"<figure>{image}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def themed(draw: Callable[..., bytes], kind: str, alt: str, caption: str = "") -> str:
    """Return a figure for light pages and for dark ones.

    Arguments:
        draw: Takes `dark` as a keyword and returns the bytes of a picture, of the colours of `vaekit.reporting.canvas`.
        kind: The type of image, as `data_uri` takes it.
        alt: What is seen, in words.
        caption: What stands below.
    """
    from vaekit.reporting.canvas import darkened

    light = draw(dark=False)
    dark = darkened(light) if kind == "svg+xml" else draw(dark=True)
    return figure(data_uri(light, kind), alt, caption, data_uri(dark, kind))


def data_uri(payload: bytes, kind: str) -> str:
    """Return bytes as a data URI of an image type such as `png` or `svg+xml`."""
    return f"data:image/{kind};base64,{base64.b64encode(payload).decode()}"


def embed_file(path: Path, largest: int) -> str | None:
    """Return a picture file as a data URI, or `None` where it cannot be read.

    Arguments:
        path: The file.
        largest: A heavy picture is made to fit a square of so many pixels, so that the page stays light.
    """
    from PIL import Image

    try:
        payload = path.read_bytes()
        with Image.open(io.BytesIO(payload), formats=("PNG", "JPEG")) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return None
            image.load()
            kind = (image.format or "").lower()
            if kind == "png" and len(payload) <= _SMALL:
                return data_uri(payload, "png")
            light = image.convert("RGB")
    except Exception:  # Pillow raises many types for a damaged file
        return None
    light.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    light.save(buffer, "JPEG", quality=90)
    return data_uri(buffer.getvalue(), "jpeg")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table; the first cell of a row is its heading, and the columns in `numbers` are set to the right."""
    right = [' class="number"' if column in numbers else "" for column in range(len(head))]
    cells = "".join(f'<th scope="col"{side}>{escape(cell)}</th>' for cell, side in zip(head, right, strict=True))
    lines = []
    for row in rows:
        others = "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(row[1:], right[1:], strict=True))
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{others}</tr>')
    inside = f"<thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{inside}</table></div>'


def details(summary: str, body: str) -> str:
    """Return a part that opens when asked; `body` is HTML already."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def flatten(value: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as rows of dotted names and texts.

    Examples:
        >>> flatten({"packages": {"torch": "2.11"}, "notes": ["a", "b"]})
        [('packages.torch', '2.11'), ('notes', 'a; b')]
    """
    rows = []
    for key, item in value.items():
        name = f"{above}{key}"
        if isinstance(item, Mapping):
            rows += flatten(item, f"{name}.")
        elif isinstance(item, list):
            rows.append((name, "; ".join(map(str, item))))
        else:
            rows.append((name, "none" if item is None else str(item)))
    return rows
