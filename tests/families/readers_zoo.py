"""Tiny random encoders and encoder-decoders of the families that share most of their code with those of the zoo."""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoModelForSeq2SeqLM

VOCABULARY = 300
Builder = Callable[[int, float], nn.Module]


def _encoder(model_type: str, **options: Any) -> Builder:
    """Builds an encoder; options replace what most configurations name alike."""

    def build(layers: int, dropout: float) -> nn.Module:
        settings: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": dropout,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        }
        return AutoModel.from_config(AutoConfig.for_model(model_type, **{**settings, **options}))

    return build


def _xlm(model_type: str, **options: Any) -> Builder:
    def build(layers: int, dropout: float) -> nn.Module:
        settings: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "n_words": VOCABULARY,
            "emb_dim": 32,
            "n_layers": layers,
            "n_heads": 4,
            "dropout": dropout,
            "attention_dropout": dropout,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_index": 1,
            "pad_token_id": 1,
        }
        return AutoModel.from_config(AutoConfig.for_model(model_type, **settings, **options))

    return build


def _t5(model_type: str, **options: Any) -> Builder:
    def build(layers: int, dropout: float) -> nn.Module:
        settings: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": layers,
            "num_heads": 4,
            "dropout_rate": dropout,
            "initializer_factor": 0.3,  # attention without a scale magnifies rounding else
            "decoder_start_token_id": 1,
            "pad_token_id": 1,
            "eos_token_id": 0,
        }
        return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **settings, **options))

    return build


def _bart(model_type: str, **options: Any) -> Builder:
    def build(layers: int, dropout: float) -> nn.Module:
        settings: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 48,
            "dropout": dropout,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
            "decoder_start_token_id": 0,
            "forced_eos_token_id": None,
            "init_std": 0.1,
        }
        config = AutoConfig.for_model(model_type, **{**settings, **options})
        return AutoModelForSeq2SeqLM.from_config(config)

    return build


FROM_PADDING = {"max_position_embeddings": 66}
ENCODERS: dict[str, Builder] = {
    "big_bird": _encoder("big_bird", block_size=4, num_random_blocks=1),
    "camembert": _encoder("camembert", **FROM_PADDING),
    "data2vec_text": _encoder("data2vec-text", **FROM_PADDING),
    "deberta_v1": _encoder(
        "deberta",
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    ),
    "deberta_v2": _encoder("deberta-v2"),  # as its configuration is by default: absolute positions
    "ernie": _encoder("ernie"),
    "eurobert": _encoder("eurobert", num_key_value_heads=2, mask_token_id=2),
    "flaubert": _xlm("flaubert"),
    "gte": _encoder("gte"),
    "jina_embeddings_v3": _encoder("jina_embeddings_v3"),
    "megatron_bert": _encoder("megatron-bert"),
    "mpnet": _encoder("mpnet", **FROM_PADDING),
    "nomic_bert": _encoder("nomic_bert"),
    "rembert": _encoder("rembert", input_embedding_size=16, output_embedding_size=24),
    "roberta_prelayernorm": _encoder("roberta-prelayernorm", **FROM_PADDING),
    "roformer": _encoder("roformer", embedding_size=16),
    "ultrabert": _encoder("ultrabert", num_key_value_heads=4, sliding_window=4),
    "xlm": _xlm("xlm"),
    "xlm_roberta_xl": _encoder("xlm-roberta-xl", **FROM_PADDING),
}
ENCODER_DECODERS: dict[str, Builder] = {
    "bart": _bart("bart"),
    "blenderbot": _bart("blenderbot"),
    "blenderbot_small": _bart("blenderbot-small"),
    "flan_t5": _t5("t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "longt5": _t5("longt5", feed_forward_proj="gated-gelu", local_radius=3, tie_word_embeddings=False),
    "longt5_global": _t5("longt5", encoder_attention_type="transient-global", local_radius=3, global_block_size=4),
    "m2m_100": _bart("m2m_100"),
    "marian": _bart("marian", decoder_start_token_id=1),
    "mbart": _bart("mbart", scale_embedding=True, decoder_start_token_id=None),
    "mt5": _t5("mt5", tie_word_embeddings=False),
    "pegasus": _bart("pegasus", decoder_start_token_id=1),
    "plbart": _bart("plbart"),
    "umt5": _t5("umt5"),
}

NEWER = ("eurobert", "gte", "jina_embeddings_v3", "nomic_bert", "ultrabert")
"""Those that the lowest supported transformers does not have."""
for name in NEWER:
    if name not in CONFIG_MAPPING:
        del ENCODERS[name]
