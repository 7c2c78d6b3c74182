"""``draw``: a picture of the learned edit vectors."""

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
        edits: A run's folder, its edits/ folder, or a hub repository with an adapter.
        to: Output file: PNG, SVG or PDF.
        revision: Branch, tag or commit of the hub repository.
        trust: Accepted for consistency with the other commands. This command imports nothing.
    """
    from red_lightning.adapters import find_edits, read_edits
    from red_lightning.pictures import draw_edits

    tensors, record = read_edits(find_edits(edits, revision))
    try:
        draw_edits(tensors, f"{record['method']['name']} on {record['backbone']}", to)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture '{to}' cannot be written: {error}") from error
    print(f"wrote {to}")
