"""``draw``: a picture of the edits that a run left behind."""

from pathlib import Path

from red_lightning.errors import UsageError


def draw(
    edits: str,
    to: Path = Path("edits.png"),
    revision: str | None = None,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Draw the learned scaling and bias by layer.

    Args:
        edits: A run's folder, its ``edits`` folder, or a hub repository of edits.
        to: The PNG, SVG or PDF file to write.
        revision: Branch, tag or commit of the hub repository.
        trust: Taken by every command that reads edits; here nothing is imported, since tensors alone are drawn.
    """
    from red_lightning.adapters import find_edits, read_edits
    from red_lightning.pictures import draw_edits

    tensors, record = read_edits(find_edits(edits, revision))
    try:
        draw_edits(tensors, f"{record['method']['name']} on {record['backbone']}", to)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture '{to}' cannot be written: {error}") from error
    print(f"wrote {to}")
