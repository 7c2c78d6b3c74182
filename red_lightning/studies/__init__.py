"""Studies: many runs from one file, and the table that they fill."""
