"""Shared by all tests: no network, two threads, one seed."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _seed_and_threads() -> None:
    torch.set_num_threads(2)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
