"""The processor of the standard model: texts and media become ids and tensors.

Conversations are rendered by the renderer that training used, so that what is served is what was
trained; texts with placeholders in them, as other programs write them, are read as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import MultiModalData

from omnitune.data.chat_template import renderer_of
from omnitune.data.template import ChatRenderer, Rendered, placeholder
from omnitune.encoders.registry import build_encoder
from omnitune.media.registry import MEDIA
from omnitune.models.medium_processor import (
    MediumProcessor,
    conversations_of,
    each,
    flat,
    named,
    rows_of,
    split,
)
from omnitune.sample import ROLES, ContentPart, Media, Message, Text, UserError

HELD = Path("given")  # stands for a medium that is at hand
_JINJA_ONLY = {"tools", "documents", "continue_final_message"}


class OmniProcessor(ProcessorMixin):
    """Texts and media for ``OmniForConditionalGeneration``.

    Args:
        tokenizer: of the fast kind, with the placeholders of the media.
        encoders: by medium, ``settings`` of its encoder and of its ``projector``.
        chat: of a pretrained thinker's chat template, as ``renderer.state()`` has it; None for
            the format of omnitune's own thinkers.
        chat_template: Jinja, for programs that render it themselves.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        encoders: Mapping[str, Mapping[str, Any]] | None = None,
        chat: dict[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.chat = chat
        self.media: dict[str, MediumProcessor] = {}
        for name in MEDIA:
            if name not in (encoders or {}):
                continue
            values = dict((encoders or {})[name])
            encoder = build_encoder(name, values["settings"], values.get("projector"))
            self.media[name] = MediumProcessor(encoder, values)
            setattr(self, MEDIA[name].processor_name, self.media[name])
            setattr(self, f"{name}_token", placeholder(name))
            number = tokenizer.convert_tokens_to_ids(placeholder(name))
            setattr(self, f"{name}_token_id", number)
            setattr(self, f"{name}_token_ids", [number])
        self._renderer: ChatRenderer | None = None
        super().__init__(tokenizer, chat_template=chat_template)

    @property
    def renderer(self) -> ChatRenderer:
        """What makes ids of conversations."""
        if self._renderer is None:
            tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
            tokenizer.no_padding()
            tokenizer.no_truncation()
            values = {"tokenizer": tokenizer.to_str()}
            self._renderer = renderer_of(values | ({"chat": self.chat} if self.chat else {}))
        return self._renderer

    def to_dict(self) -> dict[str, Any]:
        """What ``processor_config.json`` holds."""
        media = {
            MEDIA[name].processor_name: {"medium": name, **medium.values}
            for name, medium in self.media.items()
        }
        return {"processor_class": type(self).__name__, "chat": self.chat, **media}

    @classmethod
    def from_args_and_dict(
        cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any
    ) -> OmniProcessor:
        """Of what ``to_dict`` gave."""
        values = dict(processor_dict)
        found = (values.pop(medium.processor_name, None) for medium in MEDIA.values())
        values["encoders"] = {v["medium"]: v for v in found if v}
        return super().from_args_and_dict(args, values, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what the model takes."""
        media = [name for medium in self.media.values() for name in medium.model_input_names]
        return ["input_ids", "attention_mask", *media]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Ids of texts in which one placeholder stands for each medium, and the media's tensors.

        Args:
            images: paths, Pillow images or arrays, in the order of their placeholders.
            audio: paths, or samples at ``sampling_rate`` [16000].
            kwargs: media of other kinds under their own names; anything else is the tokenizer's.

        Raises:
            ValueError: media and placeholders do not match, or a medium cannot be used.
        """
        options = flat(kwargs)
        rate = options.pop("sampling_rate", None)
        given = named(images=images, audio=audio, videos=options.pop("videos", None))
        given |= options.pop("media", {})
        inputs: dict[str, list[Tensor]] = {}
        for name, medium in self.media.items():
            argument = MEDIA[name].argument
            items = list(each(given.pop(argument, None), options.pop(argument, None)))
            if rate is not None:
                items = [x if isinstance(x, str | Path | tuple) else (x, rate) for x in items]
            inputs[name] = [medium.read(item) for item in items]
        if left := [name for name, value in given.items() if list(each(value))]:
            raise ValueError(f"this model takes no {left[0]}")
        for name in ("load_audio_backend", "return_metadata"):
            options.pop(name, None)
        tensors: dict[str, Any] = {}
        for name, found in inputs.items():
            tensors |= self.media[name].tensors(found) if found else {}
        return_tensors = options.pop("return_tensors", None)
        ids = self._texts(text, inputs, options) if text is not None else {}
        return BatchFeature(
            {**ids, **tensors},
            tensor_type=return_tensors,
            skip_tensor_conversion=["text_replacement_offsets"],
        )

    def _texts(
        self, text: str | Sequence[str], inputs: dict[str, list[Tensor]], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Expands the placeholders and encodes."""
        texts = [text] if isinstance(text, str) else list(text)
        wants_types = options.pop("return_mm_token_type_ids", False)
        wants_offsets = options.pop("return_text_replacement_offsets", False)
        replacements = {
            name: [self.replacement(name, x) for x in found] for name, found in inputs.items()
        }
        for name, written in replacements.items():
            count = sum(one.count(placeholder(name)) for one in texts)
            if count != len(written):
                raise ValueError(
                    f"the text has {placeholder(name)} {count} times, and {len(written)} are given"
                )
        expanded, offsets = self.expand(texts, replacements)
        out = dict(self.tokenizer(expanded, **options))
        for name, found in inputs.items():
            slots = sum(self.num_slots(name, x) for x in found)
            number = getattr(self, f"{name}_token_id")
            if sum(row.count(number) for row in rows_of(out["input_ids"])) != slots:
                raise ValueError(
                    f"the {name} slots do not fit into max_length ({options.get('max_length')})"
                )
        if wants_types:
            out["mm_token_type_ids"] = self.create_mm_token_type_ids(out["input_ids"])
        if wants_offsets:
            out["text_replacement_offsets"] = offsets
        return out

    def num_slots(self, name: str, inputs: Tensor) -> int:
        """Tokens that a medium takes."""
        encoder = self.media[name].encoder
        return encoder.slots_for(encoder.num_slots(inputs))

    def replacement(self, name: str, inputs: Tensor) -> str:
        """What stands in the text for a medium."""
        return placeholder(name) * self.num_slots(name, inputs)

    def expand(
        self, texts: list[str], replacements: Mapping[str, Sequence[str]]
    ) -> tuple[list[str], list[list[dict[str, Any]]]]:
        """Replaces placeholders in order; says where each one stood and stands."""
        waiting = {name: iter(found) for name, found in replacements.items() if found}
        tokens = {placeholder(name): name for name in waiting}
        expanded, offsets = [], []
        for text in texts:
            out, told = "", []
            for piece, token, start in split(text, list(tokens)):
                out += piece
                if not token:
                    continue
                name, new = tokens[token], len(out)
                out += (written := next(waiting[name]))
                told.append(
                    {
                        "type": name,
                        "span": (start, start + len(token)),
                        "new_span": (new, len(out)),
                        "text": token,
                        "replacement": written,
                    }
                )
            expanded.append(out)
            offsets.append(told)
        return expanded, offsets

    def get_text_with_replacements(  # type: ignore[override]
        self,
        text: list[str],
        images_replacements: Sequence[str] = (),
        videos_replacements: Sequence[str] = (),
        audio_replacements: Sequence[str] = (),
        **others: Sequence[str],
    ) -> tuple[list[str], list[list[dict[str, Any]]]]:
        """As of the base class, for media of any kind (``<argument>_replacements``)."""
        given = {"images_replacements": images_replacements} | others
        given |= {"audio_replacements": audio_replacements}
        names = {name: f"{MEDIA[name].argument}_replacements" for name in self.media}
        return self.expand(list(text), {name: given.get(key, ()) for name, key in names.items()})

    def create_mm_token_type_ids(self, input_ids: Any) -> list[list[int]]:
        """0 for text; for a placeholder its medium's number (1 for pictures, 3 for sound)."""
        types = {getattr(self, f"{n}_token_id"): MEDIA[n].token_type for n in self.media}
        return [[types.get(number, 0) for number in row] for row in rows_of(input_ids)]

    def _get_num_multimodal_tokens(self, **sizes: Any) -> MultiModalData:
        """How many tokens media of these sizes take, for engines that plan ahead.

        Args:
            sizes: ``image_sizes``: height and width of each; ``audio_sizes``: samples of each.
        """
        found: dict[str, Any] = {}
        for name, medium in self.media.items():
            given = sizes.get(f"{name}_sizes")
            if given is not None:
                encoder = medium.encoder
                slots = [encoder.slots_for(encoder.rows_of_size(size)) for size in given]
                found |= {f"num_{name}_tokens": slots, f"num_{name}_patches": [1] * len(slots)}
        known = MultiModalData.__dataclass_fields__
        return MultiModalData(**{key: value for key, value in found.items() if key in known})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: Any = "auto",
        return_assistant_tokens_mask: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Renders conversations of messages with typed parts.

        With ``tokenize`` they are rendered as in training: what a user writes never becomes a
        control token, and the mask tells exactly the tokens that training learns.

        Args:
            conversation: one, or a list of them. A part is ``{"type": "text", "text": ...}``, or
                of a medium's type with ``path``, ``url`` (``file:`` only) or, under the type's
                name, a path or a decoded medium.
            chat_template: in place of the model's own.

        Raises:
            ValueError: a message has another form, or a medium cannot be used.
        """
        options = {key: value for key, value in kwargs.items() if value}
        if not tokenize or chat_template is not None or options.keys() & _JINJA_ONLY:
            return super().apply_chat_template(
                conversation,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_dict=return_dict,
                return_tensors=return_tensors,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                processor_kwargs=processor_kwargs,
                **kwargs,
            )
        settings = flat((processor_kwargs or {}) | kwargs)
        settings.pop("sanitize_control_tokens", None)
        tensor_type = None if return_tensors == "auto" else return_tensors
        tensor_type = settings.pop("return_tensors", tensor_type)
        conversations = conversations_of(conversation)
        out = self._render(conversations, add_generation_prompt, settings)
        if not return_assistant_tokens_mask:
            out.pop("assistant_masks")
        found = BatchFeature(out, tensor_type=tensor_type)
        return found if return_dict else found["input_ids"]

    def _render(
        self, conversations: Sequence[Any], prompt: bool, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Ids, masks and media of some conversations."""
        rendered: list[Rendered] = []
        inputs: dict[str, list[Tensor]] = {name: [] for name in self.media}
        render = self.renderer.render_prompt if prompt else self.renderer.render
        for conversation in conversations:
            given: list[tuple[str, Any]] = []
            messages = [self._message(message, given) for message in conversation]
            tensors = [(name, self.media[name].read(item)) for name, item in given]
            for name, tensor in tensors:
                inputs[name].append(tensor)
            try:
                rendered.append(render(messages, [self.num_slots(*pair) for pair in tensors]))
            except UserError as error:
                raise ValueError(str(error)) from None
        out = self._pad(rendered, options)
        for name, found in inputs.items():
            out |= self.media[name].tensors(found) if found else {}
        return out

    def _pad(self, rendered: Sequence[Rendered], options: dict[str, Any]) -> dict[str, Any]:
        longest = options.get("max_length") if options.get("truncation") else None
        rows = [one.tokens[:longest] for one in rendered]
        ends = [max((s.start + s.count for s in one.slots), default=0) for one in rendered]
        if any(end > len(row) for end, row in zip(ends, rows, strict=True)):
            raise ValueError(f"the slots of the media do not fit into max_length ({longest})")
        padded = self.tokenizer.pad(
            {"input_ids": rows},
            padding=options.get("padding", False),
            max_length=options.get("max_length"),
            padding_side=options.get("padding_side"),
            pad_to_multiple_of=options.get("pad_to_multiple_of"),
        )
        side = options.get("padding_side") or self.tokenizer.padding_side
        masks = []
        for ids, one in zip(padded["input_ids"], rendered, strict=True):
            mask = [int(x) for x in one.supervised[:longest]]
            fill = [0] * (len(ids) - len(mask))
            masks.append(mask + fill if side == "right" else fill + mask)
        out = dict(padded) | {"assistant_masks": masks}
        if options.get("return_mm_token_type_ids"):
            out["mm_token_type_ids"] = self.create_mm_token_type_ids(out["input_ids"])
        return out

    def _message(self, message: Mapping[str, Any], given: list[tuple[str, Any]]) -> Message:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"a message has the role {role!r}, expected {', '.join(ROLES)}")
        if isinstance(content, str):
            return Message(role, (Text(content),))
        parts: list[ContentPart] = []
        for part in content or ():
            if part.get("type") == "text":
                parts.append(Text(part["text"]))
                continue
            name, item = self._medium(part)
            parts.append(Media(name, HELD))
            given.append((name, item))
        return Message(role, tuple(parts))

    def _medium(self, part: Mapping[str, Any]) -> tuple[str, Any]:
        """Kind and content of a typed part."""
        name = part.get("type")
        if name not in self.media:
            known = ", ".join(["text", *self.media])
            raise ValueError(f"a part has the type {name!r}; this model knows {known}")
        for key in (name, "path", "url"):
            if part.get(key) is not None:
                return name, part[key]
        raise ValueError(f"a part of the type {name} names no file; give {name}, path or url")

    def _multimodal_inputs_from_conversations(
        self, conversations: Sequence[Any], *args: Any, **kwargs: Any
    ) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
        """The media of conversations, for a template that is rendered by the base class."""
        found: dict[str, list[Any]] = {MEDIA[name].argument: [] for name in self.media}
        for message in (m for conversation in conversations for m in conversation):
            content = message.get("content")
            for part in () if isinstance(content, str) else content or ():
                if part.get("type") != "text":
                    name, item = self._medium(part)
                    found[MEDIA[name].argument].append(item)
        return [], [], [], {"media": found}
