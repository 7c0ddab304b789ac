from vaekit.exporting.writing import export as export
