"""The families of encoder-decoders, each against transformers' own model: edits, loss, decoding, export."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from red_lightning import RED
from red_lightning.backbones.classification_head import pooling_of
from red_lightning.backbones.decoder_start import decoder_inputs, start_token
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.errors import UsageError
from red_lightning.export import export_merged
from red_lightning.families import SITES
from red_lightning.families.positions import position_limit
from red_lightning.generation.decoding import Decoding, write
from red_lightning.generation.logits_processors import NoRepeatedNgram, Processors
from red_lightning.generation.reader import Reader
from tests.backbones_zoo import build, save_backbone
from tests.export.exports import trained
from tests.families.readers_zoo import ENCODER_DECODERS
from tests.families.test_encoders import edit, edit_by_hand
from tests.training import make_data, make_task, make_trainer

FAMILIES = sorted(ENCODER_DECODERS)
QUICK = ("bart", "flan_t5", "mbart")
EVERY = [pytest.param(family, marks=[] if family in QUICK else pytest.mark.slow) for family in FAMILIES]
"""With one family of each kind of code in the fast tier."""
T5_LIKE = ("flan_t5", "longt5", "longt5_global", "mt5", "umt5")
POSTNORM = ("bart", "blenderbot_small", "marian", "plbart")
WRAPPING = ("mbart", "plbart")
"""Families for which transformers begins the decoder's input with the last label."""
SOURCES = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 0], [13, 14, 15, 16, 17, 0, 1, 1]])
MASK = (SOURCES != 1).long()
TARGETS = torch.tensor([[21, 22, 23, 24, 0], [31, 32, 0, -100, -100]])


def modules_of(family: str, site: str) -> list[str]:
    """The modules of a site, by hand."""
    names = []
    for layer in range(2):
        for stack in ("encoder", "decoder"):
            if family in T5_LIKE:
                own = "SelfAttention"
                if stack == "encoder" and family.startswith("longt5"):
                    own = "TransientGlobalSelfAttention" if family.endswith("global") else "LocalSelfAttention"
                block = f"{stack}.block.{layer}"
                inside = {
                    "ffn": [f"layer.{2 if stack == 'decoder' else 1}.DenseReluDense.wo"],
                    "attention": [f"layer.0.{own}.o"] + ["layer.1.EncDecAttention.o"] * (stack == "decoder"),
                    **{part: [f"layer.0.{own}.{part[0]}"] for part in ("query", "key", "value")},
                    "residual": [""],
                }[site]
            else:
                block = f"model.{stack}.layers.{layer}"
                inside = {
                    "ffn": ["fc2"],
                    "attention": ["self_attn.out_proj"] + ["encoder_attn.out_proj"] * (stack == "decoder"),
                    **{part: [f"self_attn.{part[0]}_proj"] for part in ("query", "key", "value")},
                    "residual": ["final_layer_norm" if family in POSTNORM else ""],
                }[site]
            names += [f"{block}.{name}".rstrip(".") for name in inside]
    return names


def with_edits(family: str) -> Any:
    """A model with random edits of FFNs and attentions."""
    model = build(family)
    edit(model, ["ffn", "attention"], modules_of(family, "ffn") + modules_of(family, "attention"))
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Of the tokens that are no padding."""
    shifted = decoder_inputs(model.config, TARGETS)
    output: Tensor = model(input_ids=SOURCES, attention_mask=MASK, decoder_input_ids=shifted).logits
    return output[TARGETS >= 0]


@pytest.mark.parametrize("family", EVERY)
def test_edits_act_where_a_hook_placed_by_hand_does(family: str) -> None:
    plain = logits(build(family))
    for site in SITES:
        own, other = build(family), build(family)
        names = modules_of(family, site)
        method = edit(own, [site], names)
        edit_by_hand(other, names)
        torch.testing.assert_close(logits(own), logits(other), rtol=1e-4, atol=1e-4)
        assert (logits(own) - plain).abs().max() > 1e-3, site
        method.detach(own)
        torch.testing.assert_close(logits(own), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", EVERY)
def test_sites_are_what_they_are_called(family: str) -> None:
    """Without any attention no source is left; without the last residual no text at all."""

    def erased(site: str) -> Any:
        model = build(family)
        for name, vector in RED([site]).apply(model).items():
            if name.endswith("scaling"):
                vector.data.zero_()
        return model

    left = logits(erased("residual"))
    torch.testing.assert_close(left, left[:1].expand_as(left), rtol=1e-4, atol=1e-4)
    model: Any = erased("attention")
    shifted = decoder_inputs(model.config, TARGETS)
    with torch.no_grad():
        one = model(input_ids=SOURCES, attention_mask=MASK, decoder_input_ids=shifted).logits
        other = model(input_ids=SOURCES + 50, attention_mask=MASK, decoder_input_ids=shifted).logits
        torch.testing.assert_close(one, other)
        plain: Any = build(family)
        one = plain(input_ids=SOURCES, attention_mask=MASK, decoder_input_ids=shifted).logits
        other = plain(input_ids=SOURCES + 50, attention_mask=MASK, decoder_input_ids=shifted).logits
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_reads_what_transformers_gives_it(family: str) -> None:
    model: Any = build(family)
    given: list[Tensor] = []
    model.get_decoder().register_forward_pre_hook(
        lambda *called: given.append(called[2]["input_ids"]), with_kwargs=True
    )
    model(input_ids=SOURCES, attention_mask=MASK, labels=TARGETS)
    own, (theirs,) = decoder_inputs(model.config, TARGETS), given
    assert torch.equal(own[:, 1:], theirs[:, 1:])
    assert (own[:, 0] == start_token(model.config)).all()
    assert family in WRAPPING or torch.equal(own, theirs)


@pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_models_own_logits(family: str, frozen: bool) -> None:
    model = with_edits(family)
    model.get_output_embeddings().weight.requires_grad_(not frozen)
    inputs = {"input_ids": SOURCES, "attention_mask": MASK, "use_cache": False}
    shifted = decoder_inputs(model.config, TARGETS)
    output = model(decoder_input_ids=shifted, **inputs).logits
    for smoothing in (0.0, 0.1):
        expected = cross_entropy(output.transpose(1, 2), TARGETS, reduction="none", label_smoothing=smoothing)
        losses = label_losses(model, TARGETS, decoder_input_ids=shifted, label_smoothing=smoothing, **inputs)
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = torch.autograd.grad(losses.sum(), learned)
    for one, other in zip(own, torch.autograd.grad(expected.sum(), learned), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
    mean = model(decoder_input_ids=shifted, labels=TARGETS, **inputs).loss
    losses = label_losses(model, TARGETS, decoder_input_ids=shifted, **inputs)
    torch.testing.assert_close(losses.sum() / (TARGETS >= 0).sum(), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bart", "mbart", "marian", "flan_t5", "m2m_100"])
def test_the_logits_are_more_than_a_product(family: str) -> None:
    """That the test of the loss would notice what a family does besides: a bias, a scale."""
    model: Any = build(family)
    hidden: list[Tensor] = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    shifted = decoder_inputs(model.config, TARGETS)
    output = model(input_ids=SOURCES, attention_mask=MASK, decoder_input_ids=shifted)
    product = hidden[0] @ model.get_output_embeddings().weight.T
    difference = (output.logits - product).abs().max()
    assert (difference > 0.1) == (family in ("bart", "mbart", "marian"))


@torch.no_grad()
def generated(model: Any, beams: int, row: int, **options: Any) -> Tensor:
    """What transformers generates for a source alone."""
    settings = GenerationConfig(
        do_sample=False,
        num_beams=beams,
        length_penalty=0.9 if beams > 1 else None,
        max_new_tokens=12,
        eos_token_id=0,
        pad_token_id=1,
        decoder_start_token_id=start_token(model.config),
        **options,
    )
    source = SOURCES[row][MASK[row].bool()][None]
    model.generation_config = GenerationConfig()
    tokens = model.generate(input_ids=source, attention_mask=torch.ones_like(source), generation_config=settings)
    return tokens[0, 1:]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", EVERY)
def test_decoding_is_that_of_generate_row_by_row(family: str, beams: int) -> None:
    model = with_edits(family)
    assert Reader.suits(model)
    decoding = Decoding(num_beams=beams, max_new_tokens=12)
    own = write(model, SOURCES, MASK, decoding, Processors([NoRepeatedNgram(2)]), [0], 1)
    for row in range(len(SOURCES)):
        theirs = generated(model, beams, row, no_repeat_ngram_size=2)
        length = min(len(theirs), own.shape[1])
        assert own[row, :length].tolist() == theirs[:length].tolist()
        assert (own[row, length:] == 1).all()
    assert len(set(own.flatten().tolist())) > 3 and not torch.equal(own[0], own[1])


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_generate_writes_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the way a backbone reads is not known; what its published configuration forces is not heard either."""
    model = with_edits(family)
    model.generation_config = GenerationConfig(forced_bos_token_id=7, no_repeat_ngram_size=3)
    decoding, processors = Decoding(num_beams=1, max_new_tokens=12), Processors([NoRepeatedNgram(2)])
    own = write(model, SOURCES, MASK, decoding, processors, [0], 1)
    monkeypatch.setattr(Reader, "suits", staticmethod(lambda backbone: False))
    assert torch.equal(write(model, SOURCES, MASK, decoding, processors, [0], 1), own)
    assert own[0, 0] != 7


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_source_length": 65}, "data.max_source_length is 65, but the backbone .* has 64 positions; lower it"),
        ({"max_target_length": 65}, "data.max_target_length is 65"),
    ],
)
def test_encoder_and_decoder_have_positions_of_their_own(
    options: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    task = make_task(save_backbone("bart", tmp_path / "bart"))
    lengths = {"max_source_length": 64, "max_target_length": 64}
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(task, datamodule=make_data(tmp_path, **lengths))
    with pytest.raises(UsageError, match=sentence):
        make_trainer(tmp_path).fit(task, datamodule=make_data(tmp_path, **{**lengths, **options}))


@pytest.mark.parametrize("family", FAMILIES)
def test_positions(family: str) -> None:
    model: Any = build(family)
    limit = position_limit(model.config)
    assert limit == (None if family in T5_LIKE else 64)
    most = torch.full((1, limit or 200), 7)
    assert model(input_ids=most, decoder_input_ids=most).logits.isfinite().all()
    if limit and family != "m2m_100":  # which makes more of its positions when it needs them
        longer = torch.full((1, limit + 1), 7)
        for inputs in (
            {"input_ids": longer, "decoder_input_ids": most},
            {"input_ids": most, "decoder_input_ids": longer},
        ):
            with pytest.raises((IndexError, RuntimeError)):
                model(**inputs)
    assert pooling_of(model.config) is None


def foldable(family: str) -> list[str]:
    return [site for site in SITES if site != "residual" or family in POSTNORM]


@pytest.mark.parametrize("family", EVERY)
def test_edits_fold(family: str) -> None:
    model = build(family)
    names = [name for site in foldable(family) for name in modules_of(family, site)]
    method = edit(model, foldable(family), names)
    expected = logits(model)
    method.fold(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", EVERY)
def test_an_export_loads_as_it_is(family: str, tmp_path: Path) -> None:
    backbone = save_backbone(family, tmp_path / family)
    method = RED(foldable(family), "scaling" if family in T5_LIKE else "both")
    model, _ = trained(tmp_path / "run", backbone, method)
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    plain: Any = AutoModelForSeq2SeqLM.from_pretrained(exported.folder).eval()
    expected = logits(model)
    assert (logits(plain) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (logits(build(family)) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("file", ["safetensors", "bin"])
@pytest.mark.parametrize("family", ["flan_t5", pytest.param("mbart", marks=pytest.mark.slow)])
def test_a_head_that_the_files_hold_apart_stays_apart(family: str, file: str, tmp_path: Path) -> None:
    """FLAN-T5's and mT5's are other weights than the embeddings, although their configurations tie them."""
    backbone = save_backbone(family, tmp_path / family)
    weights = load_file(backbone / "model.safetensors")
    embeddings = next(tensor for name, tensor in weights.items() if name.endswith("shared.weight"))
    weights["lm_head.weight"] = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, backbone / "model.safetensors", {"format": "pt"})
    if file == "bin":
        torch.save(weights, backbone / "pytorch_model.bin")
        (backbone / "model.safetensors").unlink()
    model, _ = trained(tmp_path / "run", backbone, RED(["ffn"], "scaling"))
    assert torch.equal(model.get_output_embeddings().weight, weights["lm_head.weight"])  # type: ignore[operator]
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    plain: Any = AutoModelForSeq2SeqLM.from_pretrained(exported.folder).eval()
    expected = logits(model)
    assert (logits(plain) - expected).abs().max() <= 1e-5 * expected.abs().max()
