"""What a peer would write in an afternoon: the library's `generate` behind FastAPI.

One request is answered at a time, each token is sent when it is there.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image
from transformers.generation.streamers import BaseStreamer

from omnitune.models.exported import load_exported


class TokenQueue(BaseStreamer):
    """Hands out tokens as they come; the prompt, which comes first, is left out."""

    def __init__(self) -> None:
        self.tokens: Queue[int | None] = Queue()
        self.prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt:
            self.tokens.put(int(value.reshape(-1)[-1]))
        self.prompt = False

    def end(self) -> None:
        self.tokens.put(None)


def plain_app(folder: Path, tokens: int) -> FastAPI:
    """The application of an exported model, whose answers all have so many tokens."""
    model, processor = load_exported(folder)
    lock = threading.Lock()
    app = FastAPI()

    def answer(messages: list[Any]) -> Iterator[str]:
        streamer = TokenQueue()
        with lock:
            inputs = processor.apply_chat_template(
                [messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
            writing = threading.Thread(
                target=model.generate, kwargs={**inputs, **options, "streamer": streamer}
            )
            writing.start()
            while (token := streamer.tokens.get()) is not None:
                text = processor.tokenizer.decode([token])
                yield f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"
            writing.join()
        yield "data: [DONE]\n\n"

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> StreamingResponse:
        messages = [
            message | {"content": _parts(message["content"])} for message in body["messages"]
        ]
        return StreamingResponse(answer(messages), media_type="text/event-stream")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _parts(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts as the processor takes them, pictures decoded, before the text as in training."""
    parts: list[dict[str, Any]] = []
    for part in content:
        if part["type"] == "text":
            parts.append(part)
            continue
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        parts.insert(0, {"type": "image", "image": Image.open(io.BytesIO(data))})
    return parts
