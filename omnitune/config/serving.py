"""The options of the commands that serve a model: apart from what they call, for quick help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from omnitune.config.base import Config, Count

Port = Annotated[int, Field(ge=0, le=65535)]


class ServeConfig(Config):
    """Options of ``omnitune serve``."""

    ckpt_dir: list[Path] = Field(title="DIR ...", min_length=1)
    """folders or files of the models; clients name one by the name of its folder"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 offers the server to other machines"""
    port: Port = 8000
    """port to listen on; 0 takes a free one"""
    api_key: str = ""
    """key that clients have to send [default: that of the variable OMNITUNE_API_KEY, else none]"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device to compute on; auto takes a GPU if there is one"""
    max_batch: Count = 32
    """largest number of answers that are decoded together"""
    max_waiting: Count = 64
    """largest number of requests in line; more are told to come back later (429)"""
    max_megabytes: Count = 32
    """largest size of a request"""
    max_upload_seconds: float = Field(120.0, gt=0)
    """longest time that a request may take to arrive"""
    max_pixels: Count = 25_000_000
    """largest number of pixels of a picture"""
    max_seconds: float = Field(300.0, gt=0)
    """largest length of a sound"""
    max_media: Count = 16
    """largest number of media in a conversation"""
    max_turns: Count = 64
    """largest number of messages in a conversation"""
    drain_seconds: Count = 30
    """after SIGTERM: how long answers that were begun may take to end"""


class WebConfig(ServeConfig):
    """Options of ``omnitune web``."""

    ckpt_dir: list[Path] = Field([Path("checkpoints/omni_sft_tiny")], title="DIR ...", min_length=1)
    """folders or files of the models; of several, two can answer side by side"""
    port: Port = 8080
    """port to listen on; 0 takes a free one"""


class AnswerConfig(Config):
    """Options of ``omnitune answer``."""

    ckpt_dir: Path
    """folder or file of the model"""
    data: Path
    """file or folder of records in any format"""
    out: Path
    """file for the answers, one line of JSON each; where it is there, the rest is added to it"""
    split: str = ""
    """name of the only split to answer [default: all of them]"""
    prompt: str = ""
    """question of records that have none, such as a folder of media"""
    max_new_tokens: int = Field(256, ge=1)
    """largest length of an answer in tokens"""
    max_batch: Count = 32
    """largest number of answers that are decoded together"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device to compute on; auto takes a GPU if there is one"""
    overwrite: bool = False
    """replace the file if it is there"""
