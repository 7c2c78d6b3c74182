"""Load a pretrained backbone: its weights, tokenizer, quantization, sharding and fingerprint."""
