"""``draw``: a picture of the edits that a run left behind."""

from pathlib import Path

from red_lightning.errors import UsageError


def draw(edits: Path, to: Path = Path("edits.png")) -> None:
    """Draw the learned scaling and bias by layer.

    Args:
        edits: The run's folder, or its ``edits`` folder.
        to: The PNG, SVG or PDF file to write.
    """
    from red_lightning.artifacts import draw_edits, read_edits

    folder = edits / "edits" if (edits / "edits").is_dir() else edits
    tensors, record = read_edits(folder)
    try:
        draw_edits(tensors, f"{record['method']['name']} on {record['backbone']}", to)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture '{to}' cannot be written: {error}") from error
    print(f"wrote {to}")
