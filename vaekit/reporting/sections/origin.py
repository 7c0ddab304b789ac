"""How a run was made, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from vaekit.reporting.page import details, escape, flatten, table
from vaekit.reporting.record import RunRecord

__all__ = ["notes", "remake"]


def notes(record: RunRecord) -> Iterator[str]:
    """Yield what the model, the objective and the data asked to be said."""
    found = record.environment.get("notes")
    if isinstance(found, list) and found:
        yield f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in found)}</ul>"


def remake(record: RunRecord) -> Iterator[str]:
    """Yield the commands that make the run again, its configuration and its environment."""
    yield "<h2>How to make it again</h2>"
    if command := record.environment.get("command"):
        yield f"<p>It was started with:</p><pre>{escape(command)}</pre>"
    if record.config_text.strip():
        command = shlex.join(["vaekit", "run", str(record.out / "config.yaml"), "--out", f"{record.out}-again"])
        yield f"<p>From its configuration alone:</p><pre>{escape(command)}</pre>"
        yield details("Configuration (config.yaml)", f"<pre>{escape(record.config_text)}</pre>")
    if record.environment:
        rows = flatten({key: value for key, value in record.environment.items() if key not in ("notes", "command")})
        yield details("Environment (environment.json)", table(["name", "value"], rows))
