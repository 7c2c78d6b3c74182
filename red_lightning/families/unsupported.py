"""Model types that have no record, and why."""

_BY_PADDING = (
    "it computes other hidden states for a text when padding stands beside it ({why}), so that a score would depend on "
    "which texts share a batch"
)
UNSUPPORTED: dict[str, str] = {
    # encoders
    "fnet": _BY_PADDING.format(why="its Fourier transform takes no attention mask"),
    "convbert": _BY_PADDING.format(why="its convolution reads the padding"),
    "nystromformer": _BY_PADDING.format(why="its convolution reads the padding"),
    "yoso": "it approximates attention by hashing, with a CUDA kernel of its own",
    "mra": "it approximates attention by blocks, with a CUDA kernel of its own",
    "reformer": "it attends by random hashing, and shares activations between its reversible layers",
    "funnel": "it shortens a text between its blocks, which layers of one width and length do not describe",
    "longformer": "it needs a mask of the tokens with global attention, which the tasks do not make",
    "mobilebert": "it has several FFNs in each block, in a narrower space than its hidden states",
    "squeezebert": "it is made of grouped convolutions in place of linears",
    "ibert": "it computes in integers, and its linears return a scale beside their output",
    "xmod": "it needs the language of each text, which the tasks do not know",
    "splinter": "it was pretrained to choose spans, and transformers has no classifier of it",
    "lilt": "it needs the place of each token on a page",
    "layoutlm": "it needs the place of each token on a page",
    "layoutlmv2": "it needs the place of each token on a page, and its image",
    "layoutlmv3": "it needs the place of each token on a page, and its image",
    # encoder-decoders
    "switch_transformers": "it sends each token to one of several FFNs in every other block: no module's output is "
    "the FFN's",
    "nllb-moe": "it sends each token to some of several FFNs in every fourth block, so that no module's output is the "
    "FFN's",
    "led": "it pads sources to multiples of its attention window, and needs a mask of the tokens with global attention",
    "bigbird_pegasus": "it changes its attention for good when it reads a short source, so that what it computes "
    "depends on what it has read before",
    "pegasus_x": "it pads a source to a multiple of its blocks, and reads it with global tokens of its own",
    "prophetnet": "it predicts several tokens at each position, each with a hidden state of its own",
    "fsmt": "it makes its logits within its decoder, and has two vocabularies",
    "encoder-decoder": "it joins two models of other families, each with sites of its own",
    # decoders
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), "its blocks have no FFN, whose output RED edits"),
    **dict.fromkeys(
        ("bamba", "falcon_h1", "jamba", "kimi_linear", "nemotron_h", "recurrent_gemma", "zamba", "zamba2"),
        "it keeps states in place of keys and values in a cache of its own kind, with which nothing here is tested",
    ),
    "deepseek_v4": "it has several residual streams, so the output of its FFN is not what is added to one of them",
    "granitemoeshared": "it sums up a mixture of experts and a shared FFN outside of any module",
    "mistral4": "it is multimodal, and transformers has no class for its text part alone",
    "phi4_multimodal": "it is multimodal, and transformers has no class for its text part alone",
}
"""For each model type the reason, which follows a colon in the error."""
