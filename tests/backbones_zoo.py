"""Tiny random backbones of every family, built here."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests.families.readers_zoo import ENCODER_DECODERS, ENCODERS, VOCABULARY

WORDS = [
    "name[Blue Spice], food[Thai], area[riverside]",
    "Blue Spice serves Thai food by the riverside.",
    "The Vaults is a cheap pub in the city centre, near Burger King.",
]


def build(family: str, seed: int = 0, layers: int = 2, dropout: float = 0.1) -> nn.Module:
    """A random model in evaluation mode, whose norms and biases are random too."""
    torch.manual_seed(seed)
    model = {**_BUILDERS, **ENCODERS, **ENCODER_DECODERS}[family](layers, dropout)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)  # a tiny model's outputs are else nearly constant
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(std=0.3)
    return model.eval()


def _roberta(layers: int, dropout: float) -> nn.Module:
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        max_position_embeddings=66,
    )
    return RobertaModel(config, add_pooling_layer=False)


def _bert(layers: int, dropout: float) -> nn.Module:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
    )
    return BertModel(config)


def _gpt2(layers: int, dropout: float) -> nn.Module:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=256,
        n_embd=32,
        n_layer=layers,
        n_head=4,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _t5(layers: int, dropout: float) -> nn.Module:
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=layers,
        num_heads=4,
        dropout_rate=dropout,
        decoder_start_token_id=1,
        pad_token_id=1,
        eos_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def _decoder(layers: int) -> dict[str, Any]:
    """What the configurations of all newer decoders name alike."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def _grouped(layers: int, dropout: float) -> dict[str, Any]:
    """What those name alike whose queries share keys and values."""
    return {
        **_decoder(layers),
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "attention_dropout": dropout,
    }


def _llama(layers: int, dropout: float) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_grouped(layers, dropout)))


def _mistral(layers: int, dropout: float) -> nn.Module:
    return MistralForCausalLM(MistralConfig(**_grouped(layers, dropout), sliding_window=8))


def _qwen2(layers: int, dropout: float) -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**_grouped(layers, dropout), pad_token_id=1))


def _qwen3(layers: int, dropout: float) -> nn.Module:
    return Qwen3ForCausalLM(Qwen3Config(**_grouped(layers, dropout), head_dim=16, pad_token_id=1))


def _gemma(layers: int, dropout: float) -> nn.Module:
    options = {**_grouped(layers, dropout), "num_key_value_heads": 1}
    return GemmaForCausalLM(GemmaConfig(**options, head_dim=16, pad_token_id=1))


def _gemma2(layers: int, dropout: float) -> nn.Module:
    config = Gemma2Config(**_grouped(layers, dropout), head_dim=16, sliding_window=8, pad_token_id=1)
    return Gemma2ForCausalLM(config)


def _gemma3(layers: int, dropout: float) -> nn.Module:
    config = Gemma3TextConfig(**_grouped(layers, dropout), head_dim=16, sliding_window=8, pad_token_id=1)
    return Gemma3ForCausalLM(config)


def _phi(layers: int, dropout: float) -> nn.Module:
    config = PhiConfig(**_decoder(layers), intermediate_size=64, resid_pdrop=dropout, pad_token_id=1)
    return PhiForCausalLM(config)


def _phi3(layers: int, dropout: float) -> nn.Module:
    return Phi3ForCausalLM(Phi3Config(**_grouped(layers, dropout), resid_pdrop=dropout, pad_token_id=1))


def _opt(layers: int, dropout: float) -> nn.Module:
    options = {**_decoder(layers), "max_position_embeddings": 64}
    return OPTForCausalLM(
        OPTConfig(**options, ffn_dim=64, word_embed_proj_dim=32, dropout=dropout, pad_token_id=1),
    )


def _gpt_neox(layers: int, dropout: float) -> nn.Module:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**_decoder(layers), intermediate_size=64, hidden_dropout=dropout))


def _xlm_roberta(layers: int, dropout: float) -> nn.Module:
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        max_position_embeddings=66,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return XLMRobertaModel(config, add_pooling_layer=False)


def _distilbert(layers: int, dropout: float) -> nn.Module:
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=layers,
        n_heads=4,
        hidden_dim=64,
        dropout=dropout,
        attention_dropout=dropout,
        max_position_embeddings=64,
        eos_token_id=0,
        pad_token_id=1,
    )
    return DistilBertModel(config)


def _deberta(layers: int, dropout: float) -> nn.Module:
    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=64,
        eos_token_id=0,
        pad_token_id=1,
        # what makes it version 3
        relative_attention=True,
        position_buckets=8,
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        norm_rel_ebd="layer_norm",
    )
    return DebertaV2Model(config)


def _electra(layers: int, dropout: float) -> nn.Module:
    config = ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        max_position_embeddings=64,
        eos_token_id=0,
        pad_token_id=1,
    )
    return ElectraModel(config)


def _albert(layers: int, dropout: float) -> nn.Module:
    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return AlbertModel(config)


def _modernbert(layers: int, dropout: float) -> nn.Module:
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        mlp_dropout=dropout,
        embedding_dropout=dropout,
        max_position_embeddings=64,
        local_attention=4,  # in the second layer; the first sees the whole text
        deterministic_flash_attn=True,
        attn_implementation="sdpa",
        bos_token_id=0,
        eos_token_id=0,
        cls_token_id=0,
        sep_token_id=0,
        pad_token_id=1,
    )
    return ModernBertModel(config)


_BUILDERS = {
    "roberta": _roberta,
    "xlm_roberta": _xlm_roberta,
    "bert": _bert,
    "distilbert": _distilbert,
    "deberta": _deberta,
    "electra": _electra,
    "albert": _albert,
    "modernbert": _modernbert,
    "gpt2": _gpt2,
    "t5": _t5,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
    "opt": _opt,
    "gpt_neox": _gpt_neox,
}
FAMILIES = sorted(_BUILDERS)
MASKED = ("albert", "bert", "deberta", "distilbert", "electra", "modernbert", "roberta", "xlm_roberta")
"""The encoders: families that were pretrained to fill in masked tokens."""
READERS = sorted({**ENCODERS, **ENCODER_DECODERS})
"""Encoders and encoder-decoders whose tests, but for those of their own, are slow: most of their code is tested."""
LACKING = dict.fromkeys(("phi3", "gpt_neox"), ("query", "key", "value"))
"""The sites that a family has not, for its fused projection is not made of thirds."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of :data:`VOCABULARY` tokens; EOS is 0 and padding 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def save_backbone(family: str, folder: Path, **options: object) -> Path:
    """Write a tiny model and its tokenizer as a folder that ``from_pretrained`` reads."""
    build(family, **options).save_pretrained(folder)  # type: ignore[arg-type, operator]
    build_tokenizer().save_pretrained(folder)
    return folder
