"""What encoders of sound have in common: how long a clip may be, its pieces, its stacked rows.

Shape suffixes: ``_TC`` a piece as ``listen`` gives it, T frames or samples by C values; ``_ND`` N
rows of D features.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from omnitune.encoders.base import Encoder, MediaStats
from omnitune.hub import CONFIG, check_said, read_optional, said_by
from omnitune.media.audio import SAMPLE_RATE, SHORTEST, cut, duration, read_wave
from omnitune.sample import UserError

AT_ONCE = 64  # pieces that are encoded together
# Keys of a config.json that say nothing of the model's form.
PASSING = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
Result = TypeVar("Result")
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


class SpeechEncoder(Encoder):
    """Mono 16 kHz sound.

    A clip above ``max_seconds`` is refused or, where ``long_audio`` is ``split``, cut in pauses
    into pieces, each encoded by itself; their rows follow each other and nothing is lost.

    Attributes:
        longest: seconds of the longest piece that can be encoded at all.
        stack: rows that become one slot, side by side; the last slot is filled up with zeros.
        missed: rows by which a piece may fall short of its length at most.
    """

    medium_name = "audio"
    run_settings: ClassVar[tuple[str, ...]] = ("max_seconds", "long_audio")
    longest: float = math.inf
    stack: int = 1
    missed: int = 0

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.max_seconds: float = config.get("max_seconds", 30.0)
        self.split = one_of(config, "long_audio", ("refuse", "split")) == "split"
        number = isinstance(self.max_seconds, int | float) and self.max_seconds is not True
        if not number or not 1 <= self.max_seconds < math.inf:
            raise UserError(f"audio encoder: max_seconds is {self.max_seconds!r}, not 1 or more")

    @abstractmethod
    def listen(self, wave: np.ndarray) -> Tensor:
        """The encoder's input ``[T, C]`` of a piece's samples."""

    @abstractmethod
    def rows(self, piece_TC: Tensor) -> int:
        """Rows that ``hear`` gives for a piece."""

    @abstractmethod
    def hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        """Encodes pieces ``[T, C]`` to rows ``[N, D]`` each."""

    @property
    @abstractmethod
    def samples_per_row(self) -> float:
        """How much sound is in a row of ``hear``."""

    def read(self, path: Path) -> Tensor:
        """Reads a file of any rate and channel count: ``[T, C]``, or ``[pieces, T, C]``.

        Raises:
            UserError: the file is missing, damaged, empty, too long, or holds NaN.
        """
        self.measure(path)
        wave = read_wave(path)
        limit = self._piece_seconds
        pieces = cut(wave, int(limit * SAMPLE_RATE)) if limit < math.inf else [wave]
        heard = [self.listen(piece) for piece in pieces]
        if len(heard) == 1:
            return heard[0]
        # Where a shorter piece ends is marked by what no frame holds.
        return nn.utils.rnn.pad_sequence(heard, batch_first=True, padding_value=math.nan)

    def measure(self, path: Path) -> MediaStats:
        """Nothing of a clip is lost: one that is too long is refused, or cut into pieces."""
        seconds = duration(path)
        if seconds > self.max_seconds and not self.split:
            raise UserError(
                f"{path}: {seconds:.1f} s of sound, the limit is {self.max_seconds:g} s; "
                "cut it into pieces (it is never shortened silently)"
            )
        pieces = self._pieces(seconds)
        rows = seconds * SAMPLE_RATE / self.samples_per_row
        least = int(rows) - 1 - pieces * self.missed
        return MediaStats(seconds, 0.0, max(1, least // self.stack), self._most(seconds))

    def _pieces(self, seconds: float) -> int:
        return max(1, math.ceil(seconds / self._piece_seconds))

    def _most(self, seconds: float) -> int:
        """Slots that a clip of this length has at most, wherever it is cut."""
        rows = math.ceil(seconds * SAMPLE_RATE / self.samples_per_row)
        return math.ceil((rows + 2 * self._pieces(seconds)) / self.stack)

    @property
    def _piece_seconds(self) -> float:
        return min(self.max_seconds, self.longest) if self.split else self.longest

    @property
    def largest_size(self) -> tuple[int]:
        """Samples of a clip of ``max_seconds``."""
        return (int(self.max_seconds * SAMPLE_RATE),)

    @property
    def most_rows(self) -> int:
        """Exact where a clip of ``max_seconds`` is one piece; else a bound, wherever it is cut."""
        whole = self._pieces(self.max_seconds) == 1
        return self.rows_of_size(self.largest_size) if whole else self._most(self.max_seconds)

    def num_slots(self, inputs: Tensor) -> int:
        """All rows of a clip's pieces, ``stack`` to a slot."""
        return math.ceil(sum(map(self.rows, pieces_of(inputs))) / self.stack)

    def rows_of_size(self, size: Sequence[int]) -> int:
        """Of a number of samples; exact where the clip is not cut into pieces."""
        [samples] = size
        limit = int(min(self._piece_seconds * SAMPLE_RATE, samples))
        pieces = [limit] * (samples // limit) + [samples % limit] * (samples % limit >= SHORTEST)
        rows = sum(self.rows(self.listen(np.zeros(n, dtype=np.float32))) for n in pieces)
        return math.ceil(rows / self.stack)

    def size(self, inputs: Tensor) -> int:
        """Frames or samples, finer than slots."""
        return inputs.shape[-2]

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes clips to ``[slots, feature_dim]`` each; what is padding changes nothing.

        Of a long clip, ``[pieces, T, C]``, the pieces' rows follow each other.
        """
        clips = [pieces_of(x) for x in inputs]
        flat = [piece for pieces in clips for piece in pieces]
        step = max(AT_ONCE, len(inputs))
        rows: list[Tensor] = []
        for first in range(0, len(flat), step):
            rows += self.hear(module, flat[first : first + step])
        found = iter(rows)
        return [stacked(torch.cat([next(found) for _ in pieces]), self.stack) for pieces in clips]


class PretrainedSpeech(SpeechEncoder):
    """An encoder of one of transformers' classes, with the library's own feature extractor.

    Its settings hold the values of config.json under ``model`` and those of
    preprocessor_config.json under ``features``.

    Attributes:
        extractor_class: the library's feature extractor.
        layers_name: where the module has its layers; depth_key: how the configuration counts them.
        depth: layers that are run. A ``audio_feature_layer`` before the last takes what that layer
            gives, without the norm at the end, as the library's ``hidden_states`` have it.
    """

    run_settings = (*SpeechEncoder.run_settings, "stack", "audio_feature_layer")
    layers_name: ClassVar[str]
    depth_key: ClassVar[str]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.values: dict[str, Any] = config["model"]
        self._check_features(config["features"])
        try:
            self.extractor: Any = self.extractor_class.from_dict(dict(config["features"]))
        except Exception as error:  # the library has no class of its own for what it finds wrong
            raise UserError(
                f"audio encoder: the settings of {PREPROCESSORS[0]} make no feature extractor "
                f"({said_by(error)})"
            ) from None
        rate = getattr(self.extractor, "sampling_rate", None)
        if rate != SAMPLE_RATE:
            raise UserError(
                f"audio encoder: its feature extractor's sampling_rate is {rate!r}; sound is read "
                f"at {SAMPLE_RATE}, so take a model of that rate"
            )
        self.model_config = self.configure(self.values)
        layers: int = getattr(self.model_config, self.depth_key)
        self.depth = layer_of(config, layers)
        self.cut_short = self.depth < layers
        setattr(self.model_config, self.depth_key, self.depth)
        usual = max(1, round(SAMPLE_RATE / 12.5 / self.samples_per_row))
        self.stack = whole_number(config, "stack", usual)

    def _check_features(self, features: dict[str, Any]) -> None:
        """Refuses the settings of another class: what they leave out would be guessed."""
        wanted = self.extractor_class.__name__
        keys = ("feature_extractor_type", "image_processor_type")
        named = next((features[key] for key in keys if features.get(key)), wanted)
        if named != wanted:
            raise UserError(
                f"audio encoder: its {PREPROCESSORS[0]} is that of a {named}, expected a {wanted}; "
                "take it from the model's repository"
            )

    @property
    @abstractmethod
    def extractor_class(self) -> Any:
        """The library's feature extractor for this family."""

    @staticmethod
    @abstractmethod
    def configure(values: dict[str, Any]) -> Any:
        """The library's configuration of a module without masking and dropped layers."""

    @abstractmethod
    def fresh(self) -> nn.Module:
        """The library's module of ``model_config``, in fp32."""

    @property
    def last_norm(self) -> str | None:
        """Name of the norm behind the last layer, if there is one."""
        return None

    @property
    def feature_dim(self) -> int:
        """Width of the encoder times the rows stacked into one."""
        return self.model_config.hidden_size * self.stack

    def build(self) -> nn.Module:
        """The library's module up to the chosen layer; it takes the weights of all layers too."""
        module = self.fresh()
        gone = [f"{self.layers_name}.{number}." for number in self._cut_layers()]
        if self.cut_short and self.last_norm:
            parent, _, name = self.last_norm.rpartition(".")
            setattr(module.get_submodule(parent), name, nn.Identity())
            gone.append(f"{self.last_norm}.")
        module.register_load_state_dict_pre_hook(partial(_drop, tuple(gone)))
        return module

    def _cut_layers(self) -> range:
        return range(self.depth, getattr(self.configure(self.values), self.depth_key))


def _drop(gone: tuple[str, ...], module: nn.Module, state: dict, prefix: str, *rest: Any) -> None:
    """Takes the weights of layers that are not there out of a state that is being loaded."""
    for name in [name for name in state if name.startswith(tuple(prefix + g for g in gone))]:
        del state[name]


def read_settings(folder: Path, values: dict[str, Any], kind: str) -> dict[str, Any]:
    """The settings of a ``PretrainedSpeech`` from its folder.

    Raises:
        UserError: the folder says nothing of its feature extractor.
    """
    features = [read_optional(folder, name) for name in PREPROCESSORS]
    features = [found.get("feature_extractor", found) for found in features if found]
    if not features:
        raise UserError(
            f"{folder}: holds no {PREPROCESSORS[0]}, which says how sound is brought to the "
            "encoder; take it from the model's repository"
        )
    model = {key: value for key, value in values.items() if key not in PASSING}
    return {"type": kind, "model": model, "features": features[0]}


def from_settings(kind: type[PretrainedSpeech], config: dict[str, Any], folder: Path) -> Any:
    """An encoder of settings that come from a folder; a UserError names its file."""
    try:
        return kind(config)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # the library has no class of its own for what it finds wrong
        check_said(folder, error)
        raise UserError(
            f"{folder / CONFIG}: is no {kind.type} configuration ({said_by(error)})"
        ) from None


def one_of(config: dict[str, Any], name: str, known: Sequence[str]) -> str:
    """A setting that has one of a few values, the first by default.

    Raises:
        UserError: it has another.
    """
    value = config.get(name, known[0])
    if value not in known:
        raise UserError(f"audio encoder: {name} is {value!r}, not {' or '.join(known)}")
    return value


def whole_number(config: dict[str, Any], name: str, usual: int) -> int:
    """A setting of 1 or more.

    Raises:
        UserError: it is something else.
    """
    value = config.get(name, usual)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"audio encoder: {name} is {value!r}, not a whole number from 1 on")
    return value


def layer_of(config: dict[str, Any], layers: int) -> int:
    """``audio_feature_layer`` as a number of layers: -1 is the last, 1 the first.

    Raises:
        UserError: there is no such layer.
    """
    value = config.get("audio_feature_layer", -1)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value == 0 or abs(value) > layers:
        raise UserError(
            f"audio encoder: audio_feature_layer is {value!r}; it has {layers} layers, so expected "
            f"1 to {layers}, or -1 (the last) to -{layers}"
        )
    return value if value > 0 else layers + 1 + value


def pieces_of(inputs: Tensor) -> list[Tensor]:
    """The pieces ``[T, C]`` of a clip as ``read`` gives it."""
    if inputs.dim() == 2:
        return [inputs]
    return [piece[: int(piece[:, 0].isfinite().sum())] for piece in inputs]


def pad(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads pieces ``[T, C]`` with zeros to one ``[B, T, C]`` and its mask ``[B, T]``."""
    padded_BTC = nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    lengths = torch.tensor([x.shape[0] for x in inputs], device=padded_BTC.device)
    mask_BT = torch.arange(padded_BTC.shape[1], device=padded_BTC.device) < lengths[:, None]
    return padded_BTC, mask_BT


def stacked(rows_ND: Tensor, stack: int) -> Tensor:
    """``[N, D]`` to ``[ceil(N / stack), stack * D]``; the last row is filled up with zeros."""
    if stack == 1:
        return rows_ND
    filled_ND = nn.functional.pad(rows_ND, (0, 0, 0, -len(rows_ND) % stack))
    return filled_ND.reshape(-1, stack * rows_ND.shape[1])


def in_groups(
    pieces: list[Tensor],
    key: Callable[[Tensor], Hashable],
    hear: Callable[[list[Tensor]], list[Result]],
) -> list[Result]:
    """Calls ``hear`` with the pieces of each key; what it gives comes in the pieces' order."""
    groups: dict[Hashable, list[int]] = {}
    for place, piece in enumerate(pieces):
        groups.setdefault(key(piece), []).append(place)
    found: dict[int, Result] = {}
    for places in groups.values():
        found |= zip(places, hear([pieces[place] for place in places]), strict=True)
    return [found[place] for place in range(len(pieces))]


def weights_dtype(module: nn.Module) -> torch.dtype:
    """What a module's inputs have to be."""
    return next(p.dtype for p in module.parameters() if p.is_floating_point())
