"""Published tables made again: rows that vaekit trains and evaluates, beside the figures that were published.

`definition` reads a table, whose pieces are in `parts`, `running` trains and evaluates what is not there yet, `reading`
takes the figures out of run directories, and `writing` sets the table and puts it into a Markdown file.
"""

from __future__ import annotations

from vaekit.reproducing.definition import Table, read_table, table_names
from vaekit.reproducing.parts import Measured
from vaekit.reproducing.running import reproduce
from vaekit.reproducing.writing import to_markdown, write_section

__all__ = ["Measured", "Table", "read_table", "reproduce", "table_names", "to_markdown", "write_section"]
