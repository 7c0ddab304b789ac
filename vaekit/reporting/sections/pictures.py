"""The pictures of a run: what it reconstructs and draws, last and on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vaekit.reporting.page import embed_file, figure, notice
from vaekit.reporting.record import RunRecord

__all__ = ["CAPTIONS", "figures_of", "last_pictures", "pictures"]

CAPTIONS = {
    "reconstructions": "Reconstructions: each validation image with its reconstruction to its right",
    "every-to-every": "Each modality generated from each: a row of validation samples of one modality, and below it "
    "what is generated from them alone, one row a modality; then the next modality",
    "prior": "Samples from the prior, decoded",
    "aggregate-gaussian": "Samples from a Gaussian with the moments of the aggregate posterior, decoded",
    "aggregate-mixture": "Samples around training images: near-reconstructions, not new images",
    "neighbours": "Samples, each with the nearest training image to its right, the nearest pairs first",
    "interpolations": "Walks between validation images in the latent space",
    "traversals": "Traversals: one row a unit of the latent, the most active first",
}


def pictures(record: RunRecord) -> Iterator[str]:
    """Yield the last picture of each kind, and below them how it got there."""
    yield "<h2>Pictures</h2>"
    large = [item for item in last_pictures(record) if item[0] != "traversals" or not record.latent]
    if not large:
        shape = record.config.get("data_shape")
        vectors = isinstance(shape, list) and len(shape) != 3
        yield f"<p>{'The samples are vectors: there are no pictures.' if vectors else 'There are no pictures.'}</p>"
        return
    yield figures_of(large, "large", 1280)
    earlier = [
        (kind, found[index][1], f"epoch {found[index][0]}")
        for kind, found in sorted(record.epoch_pictures.items(), key=lambda item: _rank(item[0]))
        for index in sorted({0, len(found) // 2} - {len(found) - 1})
    ]
    if earlier:
        yield "<h3>How it got there</h3>" + figures_of(earlier, "small", 640)


def last_pictures(record: RunRecord) -> list[tuple[str, Path, str]]:
    """Return kind, file and time of the last picture of each kind, in the order in which they are best read."""
    found = [(path.stem, path, "at the end of training") for path in record.pictures]
    final = {kind for kind, _, _ in found}
    # The finished model's own grid stands for the last epoch's.
    found += [
        (kind, files[-1][1], f"after epoch {files[-1][0]}")
        for kind, files in record.epoch_pictures.items()
        if kind not in final
    ]
    return sorted(found, key=lambda item: _rank(item[0]))


def figures_of(items: Sequence[tuple[str, Path, str]], size: str, largest: int) -> str:
    """Return pictures as a grid.

    Arguments:
        items: Kind, file and time of each.
        size: `"large"` or `"small"`; small ones have short captions.
        largest: Pixels of the longer side, above which a heavy picture is made smaller.
    """
    shown = []
    for kind, path, when in items:
        alt = f"{CAPTIONS.get(kind, kind)}, {when}"
        source = embed_file(path, largest)
        caption = alt if size == "large" else f"{kind}, {when}"
        shown.append(figure(source, alt, caption) if source else notice(f"samples/{path.name} cannot be read."))
    return f'<div class="{size}">{"".join(shown)}</div>'


def _rank(kind: str) -> tuple[int, str]:
    """Order kinds of pictures as they are best read: reconstructions, samples, and the rest by name."""
    return (list(CAPTIONS).index(kind) if kind in CAPTIONS else len(CAPTIONS), kind)
