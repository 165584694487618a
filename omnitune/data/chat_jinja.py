"""The chat template of an exported model (Jinja), for programs that render it themselves.

It writes one placeholder a medium; the processor makes as many of it as the medium has slots.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from omnitune.data.chat_template import TemplateRenderer
from omnitune.data.template import ChatRenderer, placeholder

# Of a message's content, a text or typed parts, one text; `between` keeps two texts apart.
_CONTENT = """\
{%- macro said(content, between) -%}
{%- if content is string -%}{{- content | trim -}}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}
{{- between if loop.previtem is defined and loop.previtem.type == 'text' else '' -}}
{{- part.text | trim -}}
MEDIA{%- else -%}
{{- raise_exception('A part of the type ' + part.type + ' is not known to this model.') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
_NATIVE = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}{{- said(message.content, '') -}}{{- '<|end|>' -}}{%- endgeneration -%}
{%- else -%}{{- said(message.content, '') -}}{{- '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
# A trained answer holds no thoughts, and the family's own template takes texts only.
_WRAPPED = """\
{%- if enable_thinking is not defined -%}{%- set enable_thinking = false -%}{%- endif -%}
{%- set told = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set told.messages = told.messages + [dict(message, content=said(message.content, ' '))] -%}
{%- endfor -%}
FOLD{%- set messages = told.messages %}"""
_FOLD = """\
{%- set told.first = told.messages[:2] | map(attribute='role') | list -%}
{%- if told.first == ['system', 'user'] -%}
{%- set both = told.messages[0].content + '\\n\\n' + told.messages[1].content -%}
{%- set told.messages = [dict(told.messages[1], content=both)] + told.messages[2:] -%}
{%- endif -%}
"""


def jinja_of(renderer: ChatRenderer, media: Sequence[str]) -> str:
    """A template that writes what a renderer does, from messages with typed parts.

    The renderer itself reads earlier turns as they were when they were the last one; a family's
    template that writes them in another way afterwards still does so here.
    """
    written = "".join(
        f"{{%- elif part.type == '{name}' -%}}{{{{- '{placeholder(name)}' -}}}}\n" for name in media
    )
    content = _CONTENT.replace("MEDIA", written)
    if not isinstance(renderer, TemplateRenderer):
        return content + _NATIVE
    wrapped = _WRAPPED.replace("FOLD", _FOLD if renderer.folds_system else "")
    source = renderer.template.source
    if renderer.opening:
        opening = f"{{{{- {json.dumps(renderer.opening)} -}}}}"
        source += f"{{%- if add_generation_prompt -%}}{opening}{{%- endif %}}"
    return content + wrapped + source
