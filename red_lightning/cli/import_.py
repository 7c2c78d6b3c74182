"""``import``: the authors' released files as edits."""

from pathlib import Path


def import_(
    vectors: Path,
    backbone: str,
    output: Path,
    classifier: Path | None = None,
    task: str | None = None,
    labels: list[str] | None = None,
    layers: list[int] | None = None,
    revision: str | None = None,
) -> None:
    """Turn the files that the authors of RED released into edits, which every other command reads.

    For example: import delta_vector.pth --classifier classifier.pth --backbone FacebookAI/roberta-base --task mnli
    --output mnli. The sites (RED, RED+ and their ablations) follow from the file. Nothing in it is run.

    Args:
        vectors: The file delta_vector.pth; it may come first, without --vectors.
        backbone: Hub id or folder of the pretrained model that it edits: RoBERTa, GPT-2, T5, Llama, or another family
            whose sites are known.
        output: The folder for edits.safetensors and edits.json, new or empty.
        classifier: The file classifier.pth of an encoder; without it the edits give hidden states and no classes.
        task: The GLUE task that was learned, which says the labels: mnli, sst2, mrpc, cola, qnli, qqp, rte or stsb.
        labels: The classes of any other task in the order of their numbers; without either, 0, 1, 2 and so on.
        layers: The layers that were edited, counted from 0, where not all were (the authors' exclude_layers).
        revision: Branch, tag or commit of the backbone on the hub.

    Raises:
        UsageError: A file is missing, damaged, asks to run code, or belongs to another backbone; or the output folder
            holds something.
    """
    from red_lightning.adapters.importing import import_edits
    from red_lightning.data.glue import GLUE_TASKS, require_task
    from red_lightning.errors import UsageError

    if task is not None:
        require_task(task)
        if labels is not None:
            raise UsageError(f"--task {task} says the labels; give --labels for another task only")
        labels = list(GLUE_TASKS[task].labels)
    record = import_edits(vectors, backbone, output, classifier, labels, layers, revision)
    sites, numbers = ", ".join(record["method"]["sites"]), record["trainable_parameters"]
    print(f"wrote {output}: RED at {sites} of '{backbone}', {numbers:,} numbers, for {record['task']}")
