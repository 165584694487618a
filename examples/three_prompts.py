"""Asks a trained model three things: one in text, one about a picture, one about a recording.

The picture and the recording are the first ones of the corpus's test split, so the model has
seen neither. Run by `make demo`; by hand:

    python examples/three_prompts.py --ckpt_dir checkpoints/omni_sft_tiny
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = re.compile(r"\s*<(image|audio)>\s*")


def first_test_record(file: Path) -> dict[str, Any]:
    for record in json.loads(file.read_text(encoding="utf-8")):
        if record.get("split") == "test":
            return record
    raise SystemExit(f"{file}: no record with split 'test'; run `omnitune corpus` first")


def text_of(content: str | list[dict[str, Any]]) -> str:
    """The words of a message, its media placeholders and media parts left out."""
    if isinstance(content, list):
        content = " ".join(part["text"] for part in content if "text" in part)
    return PLACEHOLDER.sub(" ", content).strip()


def first_exchange(record: dict[str, Any]) -> tuple[str, str]:
    """The first question of a record and its reference answer."""
    if "question" in record:
        return text_of(record["question"]), text_of(record["answer"])
    said: dict[str, str] = {}
    for turn in record.get("messages") or record["conversations"]:
        role = turn.get("role") or turn["from"]
        role = {"human": "user", "gpt": "assistant"}.get(role, role)
        said.setdefault(role, text_of(turn.get("content") or turn["value"]))
    return said["user"], said["assistant"]


def ask(ckpt_dir: str, prompt: str, reference: str, modality: str = "", media: str = "") -> None:
    print(f"\n{modality or 'text'}: {media}".rstrip(": "))
    print(f"question:  {prompt}\nreference: {reference}", flush=True)
    command = [sys.executable, str(ROOT / "infer_chat.py"), "--ckpt_dir", ckpt_dir]
    command += ["--prompt", prompt]
    if modality:
        command += [f"--{modality}", media]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_dir", default="checkpoints/omni_sft_tiny")
    parser.add_argument("--data_dir", type=Path, default=Path("data/multimodal"))
    options = parser.parse_args()

    ask(options.ckpt_dir, "what is 7 plus 5?", "12")
    for modality in ("image", "audio"):
        record = first_test_record(options.data_dir / f"{modality}_qa.json")
        question, answer = first_exchange(record)
        media = str(options.data_dir / record[modality])
        ask(options.ckpt_dir, question, answer, modality, media)


if __name__ == "__main__":
    main()
