"""``benchmark``: how fast the package is on this machine, against the plain way of doing the same work."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def main(args: Sequence[str]) -> None:
    """Run the command; the list of cases is there at once, before anything large is imported.

    Args:
        args: The command line without the command's name.
    """
    if list(args) in (["list"], ["--cases", "list"], ["--cases=list"]):
        _print_list()
    else:
        importlib.import_module("red_lightning.cli.parser").run(benchmark, args)


def benchmark(
    cases: list[str] = ["all"],  # noqa: B006 - never changed; a literal default shows in --help
    rounds: int = 5,
    device: Literal["cpu", "cuda"] = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    size: Literal["tiny", "small", "paper"] = "small",
    output: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    e2e_path: str = "tuetschek/e2e_nlg",
    glue_path: str = "nyu-mll/glue",
    ultrafeedback_path: str = "HuggingFaceH4/ultrafeedback_binarized",
    gpt2_tokenizer: str = "openai-community/gpt2",
    roberta_tokenizer: str = "FacebookAI/roberta-base",
    llama_tokenizer: str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
) -> None:
    """Measure how fast the package is on this machine, against the plain way of doing the same work.

    Every variant of a case runs once in each round, in shuffled order, in one process. The table shows the time of a
    unit of work (median and quartiles over the rounds; on a CPU that of the process, which other programs do not
    lengthen), and the median of the ratios to the baseline, each taken within a round. Models have random weights of
    a stated shape: nothing is downloaded but data and tokenizers, by the cases that name them. The exit status is 1 if
    a case failed (the others are measured all the same) or something did not hold that must, such as exactness.

    Args:
        cases: Which, by name, such as step_time,load_time; "all" for each of them. "list" says what they are.
        rounds: How often each variant runs. Differences of 1% take 31 and more.
        device: Where the models are. On cuda, times are the device's, and the peak memory is shown.
        dtype: Number format of the frozen weights and of the computation.
        size: How large the random models are: tiny (to try the command), small (minutes on a laptop) or paper (the
            shapes of the paper's experiments, for a GPU). Goals are those of small on a CPU, and of paper on an H200.
        output: Also write everything that was measured to this JSON file, with the machine and the versions. A file of
            that name is replaced.
        seed: Seeds weights, rows and the order of the variants.
        threads: Threads of torch on the CPU. More than one are counted together in the process's time.
        e2e_path: E2E data: a hub id, or a folder laid out like it.
        glue_path: GLUE data, likewise.
        ultrafeedback_path: UltraFeedback data, likewise.
        gpt2_tokenizer: Hub id or folder of the tokenizer that reads E2E.
        roberta_tokenizer: Hub id or folder of the tokenizer that reads GLUE.
        llama_tokenizer: Hub id or folder of the tokenizer that reads UltraFeedback.

    Raises:
        UsageError: A case is unknown, there is no such device, what a case needs is missing, or the file cannot be
            written.
        SystemExit: With status 1: a case failed, or something does not hold.
    """
    from red_lightning.benchmark import CASES
    from red_lightning.benchmark.report import run_cases
    from red_lightning.benchmark.settings import Settings
    from red_lightning.errors import UsageError, nearest

    names = [name.strip() for given in cases for name in given.split(",") if name.strip()]
    if names == ["list"]:
        _print_list()
        return
    if unknown := [name for name in names if name not in (*CASES, "all")]:
        raise UsageError(f"there is no case '{unknown[0]}': {nearest(unknown[0], CASES)}")
    chosen = [*CASES] if "all" in names else list(dict.fromkeys(names))
    settings = Settings(
        rounds=rounds,
        device=device,
        dtype=dtype,
        size=size,
        seed=seed,
        threads=threads,
        e2e_path=e2e_path,
        glue_path=glue_path,
        ultrafeedback_path=ultrafeedback_path,
        gpt2_tokenizer=gpt2_tokenizer,
        roberta_tokenizer=roberta_tokenizer,
        llama_tokenizer=llama_tokenizer,
    )
    if not run_cases(chosen, settings, output and output.expanduser()):
        sys.exit(1)


def _print_list() -> None:
    from red_lightning.benchmark import CASES

    width = max(map(len, CASES))
    print("\n".join(f"{name:<{width}}  {what}" for name, what in CASES.items()))
