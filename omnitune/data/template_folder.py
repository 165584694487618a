"""Reads the tokenizer and the chat template of a pretrained folder."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from omnitune.data.chat_template import ChatTemplate, TemplateRenderer
from omnitune.hub import read_optional, said_by
from omnitune.sample import UserError

# For a thinker that has none: `"chat_template": "plain"`. It needs no token but the end of a text.
PLAIN_TEMPLATE = "plain"
PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ 'User: ' + message.content + '\n' }}"
    "{% else %}{{ 'Assistant: ' + message.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
# The day of templates that write today's date: a run goes on, is scored and answers on other days.
TODAY = date(2024, 7, 26)
_CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


def read_renderer(folder: Path, given: str | None = None) -> TemplateRenderer:
    """The renderer of a pretrained folder's tokenizer and template.

    Args:
        given: in place of the folder's template: ``plain``, or a file of Jinja.

    Raises:
        UserError: there is no tokenizer, none of the fast kind, or no template; says what to do.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(
            f"{folder}: holds no tokenizer that can be read ({said_by(error)}); take a thinker "
            "with a tokenizer.json"
        ) from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{folder}: its tokenizer has no tokenizer.json and cannot be turned into one; take a "
            "thinker with a fast tokenizer"
        )
    special = {name: str(v) for name in SPECIAL if (v := getattr(tokenizer, name, None))}
    ids = read_optional(folder, "generation_config.json").get("eos_token_id")
    numbers = [n for n in (ids if isinstance(ids, list) else [ids]) if isinstance(n, int)]
    ends = [str(tokenizer.convert_ids_to_tokens(number)) for number in numbers]
    source, name = _source(folder, given, getattr(tokenizer, "chat_template", None))
    source = _CLOCK.sub(lambda found: json.dumps(TODAY.strftime(found[2])), source)
    ends += [special["eos_token"]] if "eos_token" in special else []
    template = ChatTemplate(source, special, tuple(dict.fromkeys(ends)), name)
    return TemplateRenderer(Tokenizer.from_str(backend.to_str()), template)


def _source(folder: Path, given: str | None, own: Any) -> tuple[str, str]:
    if given == PLAIN_TEMPLATE:
        return PLAIN, "the plain chat template"
    if given is not None:
        try:
            return Path(given).read_text(encoding="utf-8"), given
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"chat_template: {given} cannot be read ({error}); expected plain or a Jinja file"
            ) from None
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise UserError(
            f'{folder}: its tokenizer has no chat template; give "chat_template": "plain" (User: '
            "... Assistant: ...), or a file of Jinja"
        )
    return own, f"the chat template of {folder}"
