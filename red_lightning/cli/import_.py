"""``import``: the authors' released files as an adapter."""

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
    """Convert the files that the authors of RED released to an adapter.

    The sites follow from the file: RED, RED+ or one of their ablations. No code in the file is executed.

        import delta_vector.pth --backbone meta-llama/Llama-2-7b-hf --output released
        import delta_vector.pth --classifier classifier.pth --backbone FacebookAI/roberta-base --task mnli --output mnli

    Args:
        vectors: The file delta_vector.pth. --vectors may be left out if it comes first.
        backbone: Hub id or folder of the pretrained model.
        output: Output folder for edits.safetensors and edits.json, new or empty.
        classifier: The file classifier.pth of an encoder. Without it the adapter has no classification head.
        task: GLUE task, which sets the labels: mnli, sst2, mrpc, cola, qnli, qqp, rte or stsb.
        labels: Class names of another task, in the order of their indices. Default: 0, 1, 2, ...
        layers: Edited layers, counted from 0. Default: all (the authors' exclude_layers names the others).
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
