from vaekit.reproducing.definition import Table as Table
from vaekit.reproducing.definition import read_table as read_table
from vaekit.reproducing.definition import table_names as table_names
from vaekit.reproducing.parts import Measured as Measured
from vaekit.reproducing.running import reproduce as reproduce
from vaekit.reproducing.writing import to_markdown as to_markdown
from vaekit.reproducing.writing import write_section as write_section
