"""Benchmarks on the user's own machine. Each compares the package with the usual way to do the same work.

A case is a generator function that takes the settings and yields tables. Its module is imported only when it runs.
"""

CASES = {
    "step_time": ("training_steps", "time of a training step: RED, LoRA, IA3 and full fine-tuning"),
    "saved_activations": ("training_steps", "bytes kept for the backward pass: RED and the authors' layer"),
    "large_models": ("large_models", "time and memory of a step of Llama-2 7B: compiled, checkpointed, quantized"),
    "checkpoint_bytes": ("checkpoint_bytes", "size of a run's checkpoint and adapter, against the whole model"),
    "many_edits": ("many_edits", "decoding with a different adapter in each row, against one adapter for all rows"),
    "e2e_training": ("e2e_loss", "training on E2E: packed or shared sources, against rows padded to 164 tokens"),
    "e2e_evaluation": ("e2e_loss", "validation loss on E2E: each source once, against rows padded to 164 tokens"),
    "e2e_decoding": ("e2e_decoding", "beam search on the E2E test split: batches of sources, against row by row"),
    "glue_training": ("padded_batches", "training on GLUE: batches of similar length, against random batches"),
    "instruction_tuning": ("padded_batches", "training on UltraFeedback: packed conversations, against padded ones"),
}
"""Name -> module and what is compared. The function has the case's name."""
