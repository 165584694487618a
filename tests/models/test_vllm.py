"""The exported model in vLLM itself, on a processor; skipped where vLLM is not installed.

vLLM's own code finds the model, prepares media, builds its layers around ours, loads the weights
and computes. Its attention kernels are no part of this: they are not built for processors in its
usual wheel, so plain attention over the whole prompt stands in for them.
"""

import base64
import importlib.util
import io
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny_model, tiny_renderer
from miniatures import save_audio_folder, save_thinker_folder, save_vision_folder
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoProcessor

from omnitune.models.bases import cast_
from omnitune.models.export import write_standard
from omnitune.models.loading import assemble
from omnitune.models.registration import register_for_engines
from omnitune.models.standard import OmniForConditionalGeneration

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

# What is used of vLLM, and where it is.
USED = {
    "Attention": "model_executor.layers.attention",
    "ChatParams": "renderers.params",
    "EngineArgs": "engine.arg_utils",
    "MULTIMODAL_REGISTRY": "multimodal",
    "ProcessorInputs": "multimodal.processing",
    "TimingContext": "multimodal.processing.context",
    "get_model": "model_executor.model_loader",
    "group_and_batch_mm_kwargs": "multimodal.utils",
    "parallel_state": "distributed",
    "renderer_from_config": "renderers.registry",
    "set_current_vllm_config": "config",
    "set_forward_context": "forward_context",
}
MOST = {"image": 4, "audio": 4}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds))
    return noise.astype(np.float32)


# Texts with the media of their placeholders.
PROMPTS: dict[str, tuple[str, list[Image.Image], list[np.ndarray]]] = {
    "text": ("hello, what is this?", [], []),
    "picture": ("<|image|>what?", [picture(100, 80)], []),
    "pictures": ("a<|image|>b<|image|>", [picture(100, 80), picture(32, 32, 1)], []),
    "sound": ("<|audio|>what?", [], [sound(2)]),
    "sounds alike": ("<|audio|>a<|audio|>", [], [sound(2), sound(2, 1)]),
    "sounds": ("<|audio|>a<|audio|>", [], [sound(12), sound(3.3, 1)]),
    "all": (
        "<|image|>a<|audio|>b<|image|>c<|audio|>",
        [picture(100, 80), picture(300, 50, 1)],
        [sound(2), sound(3.3, 1)],
    ),
}


@pytest.fixture(scope="module")
def vllm() -> Iterator[Any]:
    """What is used of vLLM, for a processor, with a process group of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_TARGET_DEVICE", "cpu")
        if not torch.cuda.is_available():
            patch.setitem(sys.modules, "cutlass", None)  # of a GPU's driver; it cannot be imported
        found = {
            name: getattr(import_module(f"vllm.{place}"), name) for name, place in USED.items()
        }
        register_for_engines()
        patch.setattr(found["Attention"], "forward", attend)
        yield SimpleNamespace(**found)
        found["parallel_state"].destroy_model_parallel()
        found["parallel_state"].destroy_distributed_environment()


def attend(self: Any, query: Any, key: Any, value: Any, output_shape: Any = None) -> torch.Tensor:
    """Every token sees those before it: in place of kernels and their cache."""
    attend.calls += 1  # type: ignore[attr-defined]
    heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
    q, k, v = (
        x.view(len(x), n, -1).transpose(0, 1)[None]
        for x, n in zip((query, key, value), heads, strict=True)
    )
    options = {"is_causal": True, "scale": self.impl.scale, "enable_gqa": True}
    seen = scaled_dot_product_attention(q, k, v, **options)
    return seen[0].transpose(0, 1).reshape(len(query), -1)


attend.calls = 0  # type: ignore[attr-defined]


class Engine:
    """The parts of an engine around a folder, and the same folder in transformers."""

    def __init__(self, vllm: Any, folder: Path, dtype: str = "float32") -> None:
        self.vllm, self.folder = vllm, folder
        self.config = vllm.EngineArgs(
            model=str(folder),
            model_impl="transformers",
            dtype=dtype,
            max_model_len=512,
            enforce_eager=True,
            limit_mm_per_prompt=MOST,
        ).create_engine_config()
        self.processor = vllm.MULTIMODAL_REGISTRY.create_processor(self.config.model_config)
        with vllm.set_current_vllm_config(self.config):
            if not torch.distributed.is_initialized():
                place = f"file://{folder}/group"
                vllm.parallel_state.init_distributed_environment(1, 0, place, 0, "gloo")
                vllm.parallel_state.initialize_model_parallel(1, 1)
            self.model = vllm.get_model(vllm_config=self.config)
            # Here too: vLLM changes the library's class of the decoder so that it asks for this.
            self.plain = OmniForConditionalGeneration.from_pretrained(
                folder, dtype=self.config.model_config.dtype
            ).eval()

    def prepare(self, text: str, media: dict[str, Any]) -> Any:
        """What vLLM's own processor makes of a prompt."""
        ids = self.processor.info.get_tokenizer().encode(text, add_special_tokens=False)
        items = self.processor.info.parse_mm_data(media)
        inputs = self.vllm.ProcessorInputs(ids, items)
        return self.processor.apply(inputs, self.vllm.TimingContext(enabled=False))

    @torch.no_grad()
    def logits(self, prepared: Any) -> torch.Tensor:
        ids = torch.tensor(prepared["prompt_token_ids"])
        is_medium, found = torch.zeros(len(ids), dtype=torch.bool), []
        for name, ranges in prepared["mm_placeholders"].items():
            items = [(name, item) for item in prepared["mm_kwargs"][name]]
            rows: list[torch.Tensor] = []
            for _, count, kwargs in self.vllm.group_and_batch_mm_kwargs(items):
                rows += (made := self.model.embed_multimodal(**kwargs))
                assert len(made) == count
            for place, one in zip(ranges, rows, strict=True):
                assert len(one) == place.length
                is_medium[place.offset : place.offset + place.length] = True
                found.append((place.offset, one))
        embeddings = [one for _, one in sorted(found, key=lambda pair: pair[0])]
        options = {"multimodal_embeddings": embeddings, "is_multimodal": is_medium}
        embeds = self.model.embed_input_ids(ids, **(options if embeddings else {}))
        with self.vllm.set_forward_context(None, self.config):
            hidden = self.model(None, torch.arange(len(ids)), inputs_embeds=embeds)
            return self.model.compute_logits(hidden)


@pytest.fixture(scope="module")
def engine(vllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Around pretrained families: tiles make pictures of different length, and a bf16 thinker."""
    home = tmp_path_factory.mktemp("model")
    encoders = {"image": save_vision_folder(home / "v"), "audio": save_audio_folder(home / "a")}
    thinker = save_thinker_folder(home / "t", tie_word_embeddings=True)
    model, renderer = assemble(thinker, encoders, {"image": {"max_tiles": 6}})
    write_standard(home / "out", model.eval(), renderer)
    return Engine(vllm, home / "out")


def test_the_backend_takes_the_model(engine: Engine) -> None:
    config = engine.config.model_config
    assert config.architectures == ["OmniForConditionalGeneration"]
    assert config.architecture == "TransformersMultiModalForCausalLM"
    assert config.using_transformers_backend()
    assert set(engine.processor.info.get_supported_mm_limits()) == {"image", "audio"}
    assert type(engine.model.model).__name__ == "OmniBackbone"


@pytest.mark.parametrize("counts", [{"image": 1}, {"audio": 2}, {"image": 2, "audio": 1}])
def test_there_is_room_for_the_media_that_the_model_is_tried_with(
    engine: Engine, counts: dict[str, int]
) -> None:
    builder = engine.processor.dummy_inputs
    media = builder.get_dummy_mm_data(512, counts, {})
    made = engine.prepare(builder.get_dummy_text(counts), media)["mm_placeholders"]
    room = engine.processor.info.get_mm_max_tokens_per_item(512, counts)
    assert {name: len(ranges) for name, ranges in made.items()} == counts
    assert all(one.length <= room[name] for name, ranges in made.items() for one in ranges)
    assert room["image"] == 7 * 16  # six tiles and the whole, as no square has them


@pytest.mark.parametrize("name", PROMPTS)
def test_logits_are_those_of_transformers(engine: Engine, name: str) -> None:
    compare(engine, *PROMPTS[name], tolerance=1e-4)


def test_encoders_in_fp32_run_in_half_precision(vllm: Any, tmp_path: Path) -> None:
    """vLLM takes the thinker's format, or bf16 for fp32, and builds all parts in that one."""
    model = tiny_model(max_positions=512)
    for saved in (torch.float32, torch.bfloat16):
        cast_(model.thinker, saved)
        write_standard(tmp_path / str(saved), model, tiny_renderer())
    for folder in sorted(tmp_path.iterdir()):
        engine = Engine(vllm, folder, "auto")
        assert engine.config.model_config.dtype == torch.bfloat16
        for name in ("text", "all"):
            compare(engine, *PROMPTS[name], tolerance=0.1)


def compare(
    engine: Engine,
    text: str,
    pictures: list[Image.Image],
    sounds: list[np.ndarray],
    tolerance: float,
) -> None:
    media = {"image": pictures, "audio": [(wave, 16_000) for wave in sounds]}
    prepared = engine.prepare(text, {name: given for name, given in media.items() if given})
    calls = attend.calls  # type: ignore[attr-defined]
    found = engine.logits(prepared).float()
    assert attend.calls > calls  # type: ignore[attr-defined]
    batch = AutoProcessor.from_pretrained(engine.folder)(
        text=text,
        images=pictures or None,
        audio=sounds or None,
        return_tensors="pt",
        add_special_tokens=False,
    )
    assert batch["input_ids"][0].tolist() == list(prepared["prompt_token_ids"])
    with torch.no_grad():
        expected = engine.plain(**batch).logits[0].float()
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_requests_in_the_form_of_openai_have_the_models_own_prompt(engine: Engine) -> None:
    wave, png = io.BytesIO(), io.BytesIO()
    soundfile.write(wave, sound(2), 16_000, format="WAV")
    picture(100, 80).save(png, "PNG")
    data = {x: base64.b64encode(x.getvalue()).decode() for x in (wave, png)}
    question = {"type": "text", "text": "what is it?"}
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data[png]}"}},
        {"type": "input_audio", "input_audio": {"data": data[wave], "format": "wav"}},
        question,
    ]
    ours = [
        {"type": "image", "image": picture(100, 80)},
        {"type": "audio", "audio": soundfile.read(io.BytesIO(wave.getvalue()), dtype="float32")[0]},
        question,
    ]
    renderer = engine.vllm.renderer_from_config(engine.config)
    message = {"role": "user", "content": parts}
    params = engine.vllm.ChatParams(chat_template_kwargs={"add_generation_prompt": True})
    _, [made] = renderer.render_chat([[message]], params)
    own = AutoProcessor.from_pretrained(engine.folder).apply_chat_template(
        [{"role": "user", "content": ours}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    assert list(made["prompt_token_ids"]) == own["input_ids"][0]
