"""Pretrained folders in Hugging Face's layout, saved by the library's classes; random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")

# In the manner of the families that they are named after.
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (  # of earlier turns the thoughts are left out
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' "
    "+ m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
BRACKETS = (  # nothing opens an answer, and the system's words are part of the last question
    "{{ bos_token }}{% set ns = namespace(system='') %}"
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}{% if loop.last or loop.index0 >= messages | length - 2 %}"
    "{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}{% else %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
CHANNELS = (  # in the manner of gpt-oss: the prompt leaves the channel to the answer
    "{% for m in messages %}{{ '<|im_start|>' + m.role }}"
    "{% if m.role == 'assistant' %}{{ '<think>final' }}{% endif %}"
    "{{ '</think>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
FORGETFUL = "{{ '<|im_start|>' + messages[-1].content + '<|im_end|>' }}"
TEMPLATES = {
    "chatml": CHATML,
    "thinking": THINKING,
    "no_system": NO_SYSTEM,
    "brackets": BRACKETS,
    "channels": CHANNELS,
}
TEXTS = (
    "You help. what is the sky? the sky is the air above us.",
    "which color is the circle? the circle is red. 7 plus 5 is 12",
    "user\nassistant\nsystem\nmodel\n[INST] hello [/INST] User: Assistant: hello",
)


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE of a few merges."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(CONTROL[:3]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(TEXTS, trainer)
    found.add_tokens(list(CONTROL[3:]))  # as Qwen3 has them: added, and not special
    whole = PreTrainedTokenizerFast(
        tokenizer_object=found,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    whole.chat_template = template
    return whole


def save_thinker_folder(
    folder: Path,
    template: str | None = CHATML,
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """A thinker with tokenizer, template and generation settings."""
    torch.manual_seed(seed)
    words = tokenizer(template)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = AutoConfig.for_model(family, **sizes | settings)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "embed" not in name:
            weight.data *= 4  # so that answers vary with the prompt
    model.generation_config.eos_token_id = [words.eos_token_id, words.bos_token_id]
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_vision_folder(folder: Path, seed: int = 0) -> Path:
    """A DINOv2: the library writes its weights under other names than it computes with."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    settings = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_audio_folder(folder: Path, seed: int = 0) -> Path:
    """A whole Whisper, with windows of nine seconds."""
    torch.manual_seed(seed)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    layers = {"encoder_layers": 2, "decoder_layers": 1, "max_source_positions": 450}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(**heads, **widths, **layers, **ids, vocab_size=50)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=9).save_pretrained(folder)
    return folder
