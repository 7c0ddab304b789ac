"""Files from the network: over https alone, and in their place only when their checksum is right."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaekit.data.dataset import Progress
from vaekit.files import atomic

__all__ = ["fetch", "unpack"]

_LARGEST = 2**30  # bytes; the largest of the data sets has a quarter of it
_PATIENCE = 60.0  # seconds without an answer


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no one who sends on to an address that anybody on the way could answer for."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        """Return the request for where an answer sends to."""
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, md5: str, progress: Progress | None = None) -> None:
    """Download a file; it is there whole and with the right checksum, or not at all.

    Arguments:
        url: Its address, https.
        path: Where it belongs.
        md5: Its MD5, 32 hexadecimal digits: what the publishers of the standard data sets name.
        progress: Called as `progress(done, total, what)`, in megabytes.

    Raises:
        OSError: The address is no https address or sends on to one, does not answer, or gives another file.
        VaekitError: The place may not be written.
    """
    _require_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "vaekit"})
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with _open(request) as answer, atomic(path) as file:
        total = int(answer.headers.get("Content-Length") or 0)
        while part := answer.read(2**20):
            digest.update(part)
            file.write(part)
            done += len(part)
            if done > _LARGEST:
                raise OSError(f"{url} does not come to an end")
            if progress is not None:
                progress(done >> 20, max(total, done) >> 20, f"downloading {path.name} (MB)")
        if digest.hexdigest() != md5:
            raise OSError(f"what {url} gave has another checksum than it should")


def unpack(archive: Path, names: Iterable[str], into: Path) -> None:
    """Take files out of a tar archive, those that are named and nothing else.

    Arguments:
        archive: The archive.
        names: The files in it, with their folders.
        into: Where the folders belong.

    Raises:
        OSError: One of them is missing, or the archive is damaged.
        VaekitError: The place may not be written.
    """
    try:
        with tarfile.open(archive) as tar:
            for name in names:
                member = tar.extractfile(name)
                if member is None:
                    raise OSError(f"{name} in {archive} is no file")
                with atomic(into / name) as file:
                    while part := member.read(2**20):
                        file.write(part)
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise OSError(f"{archive} is damaged ({error})") from error


def _open(request: urllib.request.Request) -> Any:
    return urllib.request.build_opener(_HttpsOnly).open(request, timeout=_PATIENCE)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise OSError(f"{url} is no https address")
