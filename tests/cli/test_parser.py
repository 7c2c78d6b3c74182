"""Complaints of jsonargparse become one sentence each."""

import pytest

from red_lightning.__main__ import main
from red_lightning.cli.parser import explain, gathered, run
from red_lightning.errors import UsageError

OPTIONS = ["-h", "--help", "--config", "--trainer.max_epochs", "--run.name"]
CASES = {
    "not a number": (
        "Parser key \"model.init_args.learning_rate\":\n  Expected a <class 'float'>. Got value: fast",
        "model.init_args.learning_rate cannot be 'fast': it takes a number",
    ),
    "subcommand in the key": (
        "Parser key \"fit.trainer.max_epochs\":\n  Expected a <class 'int'>. Got value: two",
        "trainer.max_epochs cannot be 'two': it takes a whole number",
    ),
    "nested key": (
        'Parser key "model":\n Parser key "batch_size":\n  Expected an <class \'int\'>. Got value: 2.5',
        "model.batch_size cannot be '2.5': it takes a whole number",
    ),
    "not a list": (
        "Parser key \"compare\":\n  Expected a <class 'list'>. Got value: 3",
        "compare cannot be '3': it takes a list such as '[a, b]'",
    ),
    "choice": (
        "Parser key \"checkpoint.mode\":\n  Expected a typing.Literal['min', 'max']. Got value: least",
        "checkpoint.mode cannot be 'least': it takes one of min, max",
    ),
    "union": (
        "Parser key \"trainer.max_steps\":\n  Does not validate\n  Subtypes: [<class 'int'>, <class 'NoneType'>]\n"
        "  Errors:\n    - Expected something\n  Given value type: <class 'str'>\n  Given value: all",
        "trainer.max_steps cannot be 'all': it takes a whole number or null",
    ),
    "unknown option": (
        "unrecognized arguments: --trainer.max_epoch=2",
        "unknown option '--trainer.max_epoch': did you mean '--trainer.max_epochs'?",
    ),
    "unknown option near none": ("unrecognized arguments: --zzz 2", "unknown option '--zzz'; see --help"),
    "no option": (
        "unrecognized arguments: runs/quick",
        "'runs/quick' belongs to no option; a model comes right after the command, all else after its option",
    ),
    "nothing given": (
        "the following arguments are required: fit.data, fit.model",
        "no experiment is given: add --config NAME (python -m red_lightning configs lists those that ship)",
    ),
    "a tool's options": (
        "the following arguments are required: references, predictions",
        "give --references and --predictions",
    ),
    "a tool's model": ("the following arguments are required: model", "give --model"),
    "reference in a config": (
        "Interpolation key 'data.sise' not found",
        "the config refers to 'data.sise', which is not set",
    ),
    "unknown class elsewhere": (
        'Parser key "trainer.logger":\n  Expected a dot import path string: CSVLoger',
        "unknown class 'CSVLoger' for trainer.logger: give its full import path, such as package.module.CSVLoger",
    ),
    "anything else": ("Something\n  went   wrong", "Something went wrong"),
}


@pytest.mark.parametrize("name", CASES)
def test_explain(name: str) -> None:
    message, sentence = CASES[name]
    assert explain(message, OPTIONS) == sentence


@pytest.mark.parametrize(
    ("key", "given", "kind", "meant"),
    [
        ("model", "DataToTex", "task", "DataToText"),
        ("data", "Restaurant", "data module", "Restaurants"),
        ("model.init_args.method", "FullFinetune", "method", "FullFineTuning"),
    ],
)
def test_unknown_class(key: str, given: str, kind: str, meant: str) -> None:
    keys = " ".join(f'Parser key "{part}":\n' for part in key.split(".init_args."))
    sentence = explain(f"{keys} Expected a dot import path string: {given}", OPTIONS)
    assert sentence.startswith(f"unknown {kind} '{given}': did you mean '{meant}'?")
    assert "import path of your own" in sentence
    for base in ("BackboneTask", "PairsDataModule", "RepresentationEditor", "Method,"):
        assert base not in sentence


def test_unknown_option_of_a_class_knows_those_passed_on() -> None:
    message = (
        "Parser key \"data\":\n Problem with given class_path 'red_lightning.data.TextPairs':\n"
        "  Option 'global_batch_sise' is not accepted"
    )
    sentence = explain(message, OPTIONS)
    assert sentence.startswith("data has no option 'global_batch_sise': did you mean 'global_batch_size'?")
    assert "train_file" in sentence
    assert "self" not in sentence.split("known: ")[1].split(", ")


def chained(*messages: str) -> Exception:
    """An exception of jsonargparse, the outermost message first."""
    error: Exception | None = None
    for message in reversed(messages):
        outer = ValueError(message)
        outer.__cause__ = error
        error = outer
    assert error is not None
    return error


NEW = "The value <perhaps> was rejected by rule R7 of bool,\n  which accepts yes and no"


@pytest.mark.parametrize("message", [NEW, f'Parser key "run.baseline":\n  {NEW}'])
def test_a_new_wording_is_shown_whole(message: str) -> None:
    assert explain(message, OPTIONS) == " ".join(message.split())


def test_of_nested_new_wordings_the_innermost_is_shown_whole() -> None:
    outer = f'Parser key "model":\n  No branch took NestedArg(key=...)\n    Parser key "run.baseline":\n {NEW}'
    sentence = explain(outer, OPTIONS, chained(outer, f'Parser key "run.baseline":\n {NEW}', NEW))
    assert sentence == f"model.run.baseline: {' '.join(NEW.split())}"
    assert explain(outer, OPTIONS, chained(outer, "", " ")) == " ".join(outer.split())  # causes without a text


@pytest.mark.parametrize(
    "message", ["Expected a <class 'int'>. Got value: 3", "Expected a dot import path string: x", "", "   "]
)
def test_a_wording_without_a_place_is_no_wrong_sentence(message: str) -> None:
    assert explain(message, OPTIONS) == (" ".join(message.split()) or "the command line could not be read")


@pytest.mark.parametrize("path", ["RED", "no.such.module.Method", "os.path"])
def test_an_option_of_a_class_that_is_not_known(path: str) -> None:
    message = f"Parser key \"model\":\n Problem with given class_path '{path}':\n  Option 'sits' is not accepted"
    name = path.rsplit(".", 1)[-1]
    assert explain(message, OPTIONS) == f"model has no option 'sits'; --model.help {name} lists those that exist"


def test_very_long_messages_are_cut_and_say_so() -> None:
    assert explain("x" * 2000, OPTIONS) == "x" * 2000
    assert explain("x" * 3234, OPTIONS) == "x" * 2000 + " ... (1,234 characters more)"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["m", "--compare", "a", "b", "--limit", "3"], ["m", "--limit", "3", '--compare=["a", "b"]']),
        (["--compare=a", "--limit=3", "--compare", "b"], ["--limit=3", '--compare=["a", "b"]']),
        (["--compare", "a", "--compare=b c"], ['--compare=["a", "b c"]']),
        (["--compare", "[a, b]"], ["--compare=[a, b]"]),
        (["--compared", "a", "--compare.b=c"], ["--compared", "a", "--compare.b=c"]),
    ],
)
def test_several_values_of_an_option_are_a_list(given: list[str], meant: list[str]) -> None:
    assert gathered(given, "--compare") == meant


@pytest.mark.parametrize("given", [["--compare"], ["--compare="], ["--compare", " "], ["--compare", "--limit", "3"]])
def test_an_option_of_several_values_without_one(given: list[str]) -> None:
    with pytest.raises(UsageError, match="--compare names nothing; give one or more"):
        gathered(given, "--compare")


@pytest.mark.parametrize(
    ("given", "labels", "layers"),
    [
        ([], None, None),
        (["--labels", "a", "no"], ["a", "no"], None),
        (["--labels", "[a, b]", "--layers", "0", "2"], ["a", "b"], [0, 2]),
        (["--labels", "null", "--layers=1"], None, [1]),
    ],
)
def test_a_list_that_may_be_left_out(given: list[str], labels: list[str] | None, layers: list[int] | None) -> None:
    seen: list[object] = []

    def command(file: str, labels: list[str] | None = None, layers: list[int] | None = None) -> None:
        """Do it."""
        seen.extend([file, labels, layers])

    run(command, ["x", *given])
    assert seen == ["x", labels, layers]


def test_examples_stand_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "examples:",
        "  python -m red_lightning export runs/mine --output merged",
        "  python -m red_lightning export runs/mine --format gguf-ready --output for_llama_cpp",
    ]
