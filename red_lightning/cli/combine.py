"""``combine``: an adapter made of other adapters of the same backbone."""

from collections.abc import Sequence

from red_lightning.cli.parser import RedParser


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: What follows ``combine``.
    """
    given = _parser().parse_args(list(args))

    from red_lightning.adapters import combine_edits, read_edits
    from red_lightning.adapters.combining import differences

    folder = combine_edits(given.edits, given.output, given.weights, given.how, given.revision, given.trust)
    print(f"wrote {folder}")
    if differ := differences(read_edits(folder)[1]):
        print(
            f"note: the runs differ in {' and '.join(differ)}, so the combined adapter does not record it. Pass "
            "--template and --decoding to generate and chat"
        )


def _parser() -> RedParser:
    parser = RedParser(
        prog="python -m red_lightning combine",
        description="Combine adapters of one backbone: their weighted sum, or one after the other.",
    )
    parser.add_argument(
        "edits",
        nargs="*",
        help="Adapters of one backbone and one method: run folders, edits/ folders or hub repositories.",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        default=None,
        help="One weight per adapter: s = 1 + sum w (s_i - 1) and b = sum w b_i. Default: the mean.",
    )
    parser.add_argument(
        "--how",
        choices=["sum", "stack"],
        default="sum",
        help="sum adds the edits. stack applies them in the given order.",
    )
    parser.add_argument("--revision", type=str, help="Branch, tag or commit of the adapters that are hub repositories.")
    parser.add_argument(
        "--trust",
        nargs="+",
        action="extend",
        default=[],
        help="Packages to import custom methods from, such as my_package. Their code runs on this machine.",
    )
    parser.add_argument("--output", type=str, required=True, help="Output folder, new or empty.")
    return parser
