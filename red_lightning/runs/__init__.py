"""The folder of a run: its name, resuming, results, and what is printed of them."""
