"""The standard model trains in other libraries' loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import mixed_samples, tiny_model, tiny_renderer, write_image
from PIL import Image
from transformers import Trainer, TrainingArguments

from omnitune.evaluation.certificate import as_dicts
from omnitune.models.convert import to_processor, to_standard

SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "report_to": [],
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}


def trained_parts(model: Any, before: dict[str, torch.Tensor]) -> set[str]:
    """Parts of which a weight has moved."""
    moved = {n for n, weight in model.named_parameters() if not torch.equal(weight, before[n])}
    return {".".join(name.split(".")[:2]) for name in moved}


def fresh() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    trained = tiny_model()
    model = to_standard(trained, tiny_renderer())
    model.requires_grad_(True)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    return model, to_processor(trained, tiny_renderer()), before


def test_the_librarys_trainer(tmp_path: Path) -> None:
    model, processor, before = fresh()
    data = [as_dicts(sample.messages) for sample in mixed_samples(tmp_path)]

    def collate(conversations: list[Any]) -> Any:
        batch = processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            return_assistant_tokens_mask=True,
            processor_kwargs={"padding": True},
        )
        mask = batch.pop("assistant_masks")
        return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, -100)}

    arguments = TrainingArguments(str(tmp_path / "out"), remove_unused_columns=False, **SETTINGS)
    trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(loss > 0 for loss in losses)
    parts = {"model.language_model", "model.encoders", "model.projectors", "lm_head.weight"}
    assert trained_parts(model, before) == parts
    trainer.save_model(str(tmp_path / "saved"))
    back = type(model).from_pretrained(tmp_path / "saved")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in back.state_dict().items())


@pytest.mark.parametrize("mode", [True, False])
def test_a_batch_without_media_has_a_gradient_for_every_weight(mode: bool) -> None:
    """As processes that share a step need it."""
    model, _, _ = fresh()
    model.train(mode)
    ids = torch.tensor([[2, 40, 41, 4, 3]])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert bool(without) != mode
    media = [w.grad for n, w in model.named_parameters() if n.startswith("model.projectors")]
    assert not mode or not any(grad.any() for grad in media)
    assert loss.item() == pytest.approx(model.eval()(input_ids=ids, labels=ids).loss.item())


@pytest.mark.slow  # the library takes seconds to import
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_trls_trainer(tmp_path: Path, kind: str) -> None:
    """Without a collator of one's own; the assistant's tokens alone are learnt."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, processor, before = fresh()
    messages = [
        {"role": "user", "content": "which color?"},
        {"role": "assistant", "content": "red."},
    ]
    rows: list[dict[str, Any]] = [{"messages": messages} for _ in range(6)]
    if kind == "pictures":
        picture = write_image(tmp_path / "one.png")
        rows = [row | {"images": [Image.open(picture)]} for row in rows]
    arguments = SFTConfig(
        str(tmp_path / "out"), assistant_only_loss=True, bf16=False, max_length=None, **SETTINGS
    )
    trainer = SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert ("model.encoders" in trained_parts(model, before)) == (kind == "pictures")
