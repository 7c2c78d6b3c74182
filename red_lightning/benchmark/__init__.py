"""Benchmarks of the package on the user's own machine, against the plain way of doing the same work.

A case is one file with one function ``measure(settings) -> Case``. The file is imported only when the case runs.
"""

CASES = {
    "step_time": "a training step of RED, LoRA, IA3 and all weights, against a backbone with one trained vector",
    "saved_activations": "the bytes that a step keeps for its backward pass, against the authors' layer",
    "framework_tax": "a training step through Lightning with the package's callbacks, against a bare loop",
    "load_time": "loading a backbone with its edits, against plain from_pretrained",
    "checkpoint_bytes": "the files that a run leaves, against a checkpoint of the whole model",
    "many_edits": "decoding with another edit in each row, against one edit for all rows",
    "label_loss": "the loss of a frozen head from a few logits at a time, against all logits at once",
    "e2e_training": "E2E rows packed, and with shared sources, against rows padded to 164 tokens and all logits",
    "e2e_evaluation": "E2E's validation loss with each source read once, against rows padded to 164 tokens",
    "e2e_decoding": "E2E's test split with ten beams, each source once and in batches, against row by row",
    "glue_training": "GLUE rows in batches of like length, against batches at random and padding to 128",
    "large_models": "a step of Llama-2 7B and 70B (smaller ones on a CPU): speed, share of the peak, memory",
    "packed_conversations": "conversations packed without padding, against padding to the longer of two",
}
"""Case -> what it compares. Each is the function ``measure`` in the module of its name."""
