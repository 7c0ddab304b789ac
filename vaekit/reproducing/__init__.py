"""Published tables made again: rows that vaekit trains and evaluates, beside the figures that were published.

`definition` reads a table, whose pieces are in `parts`, `running` trains and evaluates what is not there yet, `reading`
takes the figures out of run directories, and `writing` sets the table and puts it into a Markdown file. Everything is
imported when first used: a table is listed without torch.
"""

from vaekit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)
