"""Another edit for each row: each row gets what it gets with its edit alone."""

from collections.abc import Iterable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.generation import EditBank
from red_lightning.methods import RED, RED_PLUS_SITES, SSF, BitFit, FullFineTuning, LoRA, Method
from tests.adapters.test_combining import leave, renamed
from tests.backbones_zoo import FAMILIES, LACKING, build

ROWS = ["a", None, "b", "a"]
TOKENS = torch.randint(2, 300, (4, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(TOKENS)
MASK[1, :3] = MASK[3, :1] = 0
"""Padding on the left."""


def run(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    """What a batch gives."""
    extra = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=tokens, **extra)[0]


def write(model: Any, rows: slice = slice(None), **options: Any) -> Tensor:
    """What a batch writes, padded to 12 new tokens."""
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1, "eos_token_id": 0, **options}
    torch.manual_seed(0)
    written = model.generate(input_ids=TOKENS[rows], attention_mask=MASK[rows], **settings)
    new = written if model.config.is_encoder_decoder else written[:, TOKENS.shape[1] :]
    return nn.functional.pad(new, (0, 13 - new.shape[1]), value=1)


def alone(folder: Path, family: str, names: Iterable[str | None]) -> dict[str | None, nn.Module]:
    """A model of its own for each edit."""
    models: dict[str | None, nn.Module] = {}
    for name in dict.fromkeys(names):
        models[name] = build(family)
        if name is not None:
            apply_edits(models[name], folder / name)
    return models


def filled(folder: Path, family: str, methods: dict[str, Method]) -> EditBank:
    """A bank of random edits, which are on disk too."""
    bank = EditBank(build(family))
    for seed, (name, method) in enumerate(methods.items()):
        leave(folder / name, seed, method, family)
        bank.add(name, folder / name)
    return bank


def sites_of(family: str) -> list[str]:
    """The sites of RED+ that a row of a batch can have of its own."""
    shared = ("query", "key") if family == "deberta" else LACKING.get(family, ())
    return [site for site in RED_PLUS_SITES if site not in shared]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_forward_pass_gets_its_edit_bit_for_bit(family: str, tmp_path: Path) -> None:
    methods = {"a": RED(sites_of(family)), "b": RED(["residual", "ffn"], layers=[0])}
    bank = filled(tmp_path, family, methods)
    with bank.use(ROWS):
        together = run(bank.backbone)
    models = alone(tmp_path, family, ROWS)
    for row, name in enumerate(ROWS):
        assert torch.equal(together[row], run(models[name])[row])
    assert not torch.equal(together[0], run(models[None])[0]) and not torch.equal(together[2], run(models[None])[2])
    assert torch.equal(run(bank.backbone), run(models[None]))  # outside nothing is edited


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "qwen3", "opt"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}],
    ids=["greedy", "beams", "several", "samples"],
)
def test_every_row_of_generate_gets_its_edit(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    bank = filled(tmp_path, family, {"a": RED(sites_of(family)), "b": RED(["ffn"], "bias")})
    each = options.get("num_return_sequences", 1)
    with bank.use(ROWS):
        together = write(bank.backbone, **options).unflatten(0, (len(ROWS), each))
    for name, model in alone(tmp_path, family, ROWS).items():
        separate = write(model, **options).unflatten(0, (len(ROWS), each))
        for row in [row for row, its in enumerate(ROWS) if its == name]:
            assert torch.equal(together[row], separate[row])
            if not options.get("do_sample"):  # a batch of its own draws other numbers
                assert torch.equal(together[row], write(model, slice(row, row + 1), **options))
    plain = write(build(family), **options).unflatten(0, (len(ROWS), each))
    assert any(not torch.equal(together[row], plain[row]) for row in (0, 2, 3))


def test_thirds_of_a_fused_projection_and_other_affine_methods(tmp_path: Path) -> None:
    methods = {"a": RED(["query"]), "b": RED(["key", "value"], "scaling"), "c": SSF(), "d": BitFit()}
    bank = filled(tmp_path, "gpt2", methods)
    rows = ["d", "c", "b", "a"]
    with bank.use(rows):
        together = run(bank.backbone)
    for row, (name, model) in enumerate(alone(tmp_path, "gpt2", rows).items()):
        assert torch.equal(together[row], run(model)[row]), name


def test_three_hundred_edits_stay_in_memory(tmp_path: Path) -> None:
    bank = EditBank(build("gpt2"))
    generator = torch.Generator().manual_seed(0)
    sites = [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)]
    edits = {
        f"edit {number}": {
            f"{site}.{vector}": one + 0.3 * torch.randn(32, generator=generator)
            for site in sites
            for vector, one in (("scaling", 1.0), ("bias", 0.0))
        }
        for number in range(300)
    }
    for name, vectors in edits.items():
        bank.add(name, vectors)
    assert bank.names == list(edits)
    for name in list(edits)[1::2]:
        bank.remove(name)
    for name in list(edits)[1::4]:
        bank.add(f"{name} again", edits[name])
    held = [buffer.shape for name, buffer in bank.backbone.named_buffers() if ".editor." in name]
    assert held == [(512, 32)] * 4  # room that is left is used again
    rows: list[str | None] = ["edit 298", "edit 1 again", None, "edit 0"]
    with bank.use(rows):
        together = run(bank.backbone)
    for row, name in enumerate(rows):
        model = build("gpt2")
        for site in sites if name else []:
            vectors = edits[name.removesuffix(" again")]
            model.get_submodule(site).register_forward_hook(
                lambda module, args, output, site=site, vectors=vectors: torch.addcmul(
                    vectors[f"{site}.bias"], output, vectors[f"{site}.scaling"]
                )
            )
        assert torch.equal(together[row], run(model)[row])


def test_vectors_stay_float32_beside_a_bfloat16_backbone(tmp_path: Path) -> None:
    site = "transformer.h.1.mlp.c_proj"
    bank = EditBank(build("gpt2"))
    bank.add("a", {f"{site}.scaling": torch.full((32,), 1.002)})  # in bfloat16 it would be 1
    bank.backbone.bfloat16()
    seen: list[Tensor] = []
    bank.backbone.get_submodule(site).register_forward_hook(lambda module, args, output: seen.append(output))
    for rows in ([None] * 4, [None, "a", None, "a"]):
        with bank.use(rows):
            run(bank.backbone)
    plain, edited = seen
    assert edited.dtype == torch.bfloat16 and torch.equal(edited[::2], plain[::2])
    assert torch.equal(edited[1::2], (plain[1::2].float() * torch.tensor(1.002)).bfloat16())
    assert not torch.equal(edited[1::2], plain[1::2])
    bank.add("b", leave(tmp_path / "b", 1))  # what is learned in float32 fits the rounded weights too
    model = build("gpt2").bfloat16()
    apply_edits(model, tmp_path / "b")
    with bank.use(["b"] * 4):
        assert torch.equal(run(bank.backbone), run(model))


def test_threads_use_edits_of_their_own(tmp_path: Path) -> None:
    bank = filled(tmp_path, "gpt2", {"a": RED(), "b": RED()})
    begun, written = Barrier(2, timeout=60), {}

    def work(name: str) -> None:
        with bank.use([name] * 4):
            begun.wait()
            written[name] = write(bank.backbone)

    threads = [Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, model in alone(tmp_path, "gpt2", ["a", "b"]).items():
        assert torch.equal(written[name], write(model))


def test_a_batch_keeps_what_it_began_with(tmp_path: Path) -> None:
    bank = filled(tmp_path, "gpt2", {"a": RED(), "b": RED(["attention"])})
    model = alone(tmp_path, "gpt2", ["a"])["a"]
    with bank.use(["a"] * 4):
        bank.remove("a")
        bank.add("c", tmp_path / "b")  # in the place of a
        with bank.use(["c"] * 4):
            assert torch.equal(run(bank.backbone), run(alone(tmp_path, "gpt2", ["b"])["b"]))
        assert torch.equal(run(bank.backbone), run(model))


def test_edits_of_hidden_layers_fit_inside_a_language_model(tmp_path: Path) -> None:
    model = build("llama")
    learned = RED().apply(model.base_model)
    for vector in learned.values():
        vector.data += 0.3
    bare = build("llama").base_model
    record = {"backbone": "x", "fingerprint": fingerprint(bare), "method": RED().describe()}
    save_edits(tmp_path / "a", learned, record)
    bank = EditBank(build("llama"))
    bank.add("a", tmp_path / "a")
    with bank.use(["a", None, None, None]):
        together = run(bank.backbone)
    assert torch.equal(together[0], run(model)[0]) and torch.equal(together[1], run(build("llama"))[1])


def test_taking_the_bank_off_leaves_the_backbone_as_it_was(tmp_path: Path) -> None:
    bank = filled(tmp_path, "gpt2", {"a": RED(RED_PLUS_SITES)})
    plain = build("gpt2")
    assert bank.backbone.state_dict().keys() == plain.state_dict().keys()  # nothing of it is saved with the backbone
    bank.detach()
    assert [name for name, _ in bank.backbone.named_modules()] == [name for name, _ in plain.named_modules()]
    assert torch.equal(run(bank.backbone), run(plain)) and bank.names == []
    bank.add("a", tmp_path / "a")
    assert bank.names == ["a"]


def refuse(bank: EditBank, name: str, edits: Any, complaint: str) -> None:
    before, names = run(bank.backbone), bank.names
    with pytest.raises(UsageError, match=complaint) as caught:
        bank.add(name, edits)
    assert "\n" not in str(caught.value)
    assert torch.equal(run(bank.backbone), before) and bank.names == names


def test_what_a_bank_cannot_hold_is_refused(tmp_path: Path) -> None:
    bank = filled(tmp_path, "gpt2", {"a": RED()})
    refuse(bank, "a", tmp_path / "a", "has an edit 'a' already")
    methods: list[Method] = [LoRA(), FullFineTuning()]
    for method in methods:
        folder = renamed(leave(tmp_path / type(method).__name__, 1), method)
        refuse(bank, "b", folder, rf"learned with {type(method).__name__}, which cannot change from row to row")
    refuse(bank, "b", leave(tmp_path / "other", 1, family="llama"), "belong to another backbone")
    refuse(bank, "b", tmp_path / "none", "does not exist")
    site = "transformer.h.0.mlp.c_proj"
    refuse(bank, "b", {f"{site}.weight": torch.ones(32)}, "neither the scaling nor the bias")
    refuse(bank, "b", {"h.0.mlp.c_proj.bias": torch.ones(32)}, "neither the scaling nor the bias")
    refuse(bank, "b", {f"{site}.scaling": [1.0] * 32}, "must be a tensor, but is a list")
    refuse(bank, "b", {}, "the edit has no vectors")
    refuse(bank, "b", {"transformer.h.0.scaling": torch.tensor(1.0)}, "must be 1 finite numbers")
    for wrong in (torch.ones(31), torch.ones(1, 32), torch.full((32,), torch.nan)):
        refuse(bank, "b", {f"{site}.scaling": wrong}, "must be 32 finite numbers")
        refuse(bank, "b", {"transformer.h.1.attn.c_proj.scaling": wrong}, "must be 32 finite numbers")
    with pytest.raises(UsageError, match="edited already"):
        EditBank(bank.backbone)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    bank = filled(tmp_path, "gpt2", {"thai": RED()})
    with pytest.raises(UsageError, match="the bank has no edit 'thia': did you mean 'thai'"), bank.use(["thia"]):
        pass
    with pytest.raises(UsageError, match="has no edit 'x'"):
        bank.remove("x")
    for change in (bank.remove, lambda name: bank.add(name, tmp_path / "thai")):
        with pytest.raises(UsageError, match="None names no edit"):
            change(None)  # type: ignore[arg-type]
    with bank.use([None] * 4):  # which has stayed what it was
        assert torch.equal(run(bank.backbone), run(build("gpt2")))
    with pytest.raises(UsageError, match="no edits are named"), bank.use([]):
        pass
    with pytest.raises(UsageError, match="the batch has 4 rows, which 3 edits do not divide"), bank.use(["thai"] * 3):
        run(bank.backbone)
    assert torch.equal(run(bank.backbone), run(build("gpt2")))


def test_what_is_computed_once_for_a_batch_is_refused(tmp_path: Path) -> None:
    bank = EditBank(build("deberta"))
    for method in (RED(["query"]), RED(["key"], "scaling"), SSF()):
        folder = leave(tmp_path / str(id(method)), 1, method, "deberta")
        refuse(bank, "a", folder, "DeBERTa-v3 computes with '.*' for the whole batch at once")
