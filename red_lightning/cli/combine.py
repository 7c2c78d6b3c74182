"""``combine``: edits made of other edits of the same backbone."""

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
            f"note: the runs differ in {' and '.join(differ)}, so that the combined edits say nothing of it: give "
            "generate and chat --template and --decoding"
        )


def _parser() -> RedParser:
    parser = RedParser(
        prog="python -m red_lightning combine",
        description="Write edits that are made of others: their weighted sum, or one after the other.",
    )
    parser.add_argument(
        "edits", nargs="*", help="Runs' folders, edits folders or hub repositories: of one backbone and one method."
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        default=None,
        help="One for each of the edits: s = 1 + sum w (s_i - 1) and b = sum w b_i. Without them, the mean.",
    )
    parser.add_argument(
        "--how",
        choices=["sum", "stack"],
        default="sum",
        help="Add the edits up, or stack them in the order given: the second edits what the first has edited.",
    )
    parser.add_argument("--revision", type=str, help="Branch, tag or commit of those that are hub repositories.")
    parser.add_argument(
        "--trust",
        nargs="+",
        action="extend",
        default=[],
        help="Packages whose own methods may be imported, such as my_package: their code runs.",
    )
    parser.add_argument("--output", type=str, required=True, help="The folder to write, which is new or empty.")
    return parser
