"""Models with each type of projector: trained, saved, loaded; packed rows equal single ones."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import ENCODERS, mixed_samples, sft_settings, tiny_model, tiny_reader, tiny_renderer
from torch import Tensor, nn

from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig
from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.feature_cache import encoder_key
from omnitune.data.packing import Batch, pack
from omnitune.data.rounding import round_up
from omnitune.encoders import registry
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.models.loading import load_omni, read_reading, save_omni
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Sample, UserError
from omnitune.serving.session import ChatSession
from omnitune.storage import read_checkpoint, write_checkpoint
from omnitune.training.sft import finetune

RESAMPLER = {"type": "resampler", "queries": 3, "heads": 2, "layers": 2}
TYPES: list[dict[str, dict[str, Any]]] = [
    {"image": {"type": "mlp"}, "audio": {"type": "linear"}},
    {"image": {"type": "linear"}, "audio": RESAMPLER},
    {"image": {"type": "pixel_shuffle_mlp", "factor": 4}},
    {"image": RESAMPLER},
    {"image": {"type": "identity"}},
    {"audio": {"type": "stack_mlp", "factor": 3}},
    {},
]


class StackedEncoder(FastConformerEncoder):
    """Joins ``stack`` rows to one, as encoders of 50 rows a second do."""

    run_settings = ("stack",)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__({name: value for name, value in config.items() if name != "stack"})
        self.config, self.stack = config, config.get("stack", 1)

    @property
    def feature_dim(self) -> int:
        return super().feature_dim * self.stack


def built(projectors: dict[str, dict[str, Any]]) -> OmniModel:
    """The random model, whose pictures' rows are as wide as its embeddings."""
    encoders = ENCODERS | {"image": ENCODERS["image"] | {"hidden_size": 8}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OmniModel(OmniConfig(tiny_model().config.thinker, encoders, projectors))
        model.match_projector_scales()
    return model.eval()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return mixed_samples(tmp_path_factory.mktemp("media"))


@pytest.fixture
def _stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENCODERS, "fastconformer", StackedEncoder)


def batch_of(model: OmniModel, samples: list[Sample]) -> Batch:
    return pack([tiny_reader(model).item(sample) for sample in samples])


def nll(model: OmniModel, batch: Batch) -> Tensor:
    return model.token_scores(batch).nll_N


@pytest.mark.usefixtures("_stacked")
@pytest.mark.parametrize("projectors", TYPES)
def test_each_type_learns_is_saved_and_loads_equal(
    projectors: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    model = built(projectors)
    samples = mixed_samples(tmp_path)
    batch = batch_of(model, samples)
    model.requires_grad_(False)
    projecting = [p for name in model.modalities for p in model.projector(name).parameters()]
    for weight in projecting:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(projecting, lr=1e-2)
    before = float(nll(model, batch).mean())
    for _ in range(8):
        optimizer.zero_grad()
        loss, count = model(batch)
        (loss.sum() / count.sum()).backward()
        assert all(weight.grad is not None for weight in projecting)
        optimizer.step()
    assert float(nll(model, batch).mean()) < 0.95 * before
    save_omni(tmp_path / "omni.pt", model, tiny_renderer())
    found, _, values = load_omni(tmp_path)
    assert values["config"]["projectors"] == model.config.projectors
    for name, settings in projectors.items():
        assert values["config"]["projectors"][name].items() >= settings.items()
    assert torch.equal(nll(found, batch_of(found, samples)), nll(model, batch))


@pytest.mark.usefixtures("_stacked")
@pytest.mark.parametrize("projectors", TYPES)
def test_packed_cached_and_rounded_rows_equal_each_sample_alone(
    projectors: dict[str, dict[str, Any]], samples: list[Sample]
) -> None:
    model = built(projectors)
    items = [tiny_reader(model).item(sample) for sample in samples]
    alone = torch.cat([nll(model, pack([item])) for item in items])
    torch.testing.assert_close(nll(model, pack(items)), alone, atol=1e-4, rtol=1e-4)
    for item in items:
        names = [slot.media.modality for slot in item.rendered.slots]
        media = zip(names, item.media, strict=True)
        with torch.no_grad():
            item.media, item.raw = [model.encode(n, [x])[0] for n, x in media], frozenset()
    encoded = pack(items)
    torch.testing.assert_close(nll(model, encoded), alone, atol=1e-4, rtol=1e-4)
    rounded = nll(model, round_up(encoded))[: len(alone)]
    torch.testing.assert_close(rounded, alone, atol=1e-4, rtol=1e-4)


def test_rows_of_another_number_than_the_slots_say_are_refused(samples: list[Sample]) -> None:
    """Two clips whose rows have the right sum, but not each, would stand in each other's place."""
    model = tiny_model()
    batch = batch_of(model, samples)
    slots_M = batch.media["audio"].slots_M
    assert slots_M[0] != slots_M[1]
    slots_M[:2] = slots_M[1::-1]
    with pytest.raises(UserError, match="audio feature rows"):
        model.embed(batch.tokens_T, batch.media)


def test_a_file_without_projector_settings_loads_as_before(tmp_path: Path) -> None:
    model = tiny_model()
    samples = mixed_samples(tmp_path)
    save_omni(tmp_path / "omni.pt", model, tiny_renderer())
    values = read_checkpoint(tmp_path / "omni.pt")
    del values["config"]["projectors"]
    write_checkpoint(tmp_path / "omni.pt", values)
    found, _, _ = load_omni(tmp_path)
    assert found.config.projectors == {"image": {"type": "grid_mlp"}, "audio": {"type": "mlp"}}
    assert torch.equal(nll(found, batch_of(found, samples)), nll(model, batch_of(model, samples)))
    assert read_reading(tmp_path, 256).modalities["image"].projector == {"type": "grid_mlp"}


def test_a_resampler_stands_before_a_readout(samples: list[Sample]) -> None:
    """Its slots are no feature rows: nothing can say which word each of them names."""
    encoders = {"image": ENCODERS["image"] | {"words": 9}}
    config = OmniConfig(tiny_model().config.thinker, encoders, {"image": RESAMPLER})
    model = OmniModel(config).eval()
    model.match_projector_scales()
    assert model.readout("image") is None
    assert cast(nn.Linear, model.proj_v.down).weight.any()
    assert nll(model, batch_of(model, samples[:2])).isfinite().all()


def test_features_are_kept_as_the_encoder_gives_them_and_lengths_as_they_stand() -> None:
    plain, read = tiny_model(), built({})
    resampled = built({"image": RESAMPLER})
    for model in (read, resampled):
        model.encoders["image"].load_state_dict(read.encoders["image"].state_dict())
    keys = [encoder_key(m.modalities["image"], m.encoders["image"]) for m in (read, resampled)]
    assert keys[0] == keys[1]
    renderer = tiny_renderer()
    limits = [ReadLimits(renderer, m.modalities, 256) for m in (plain, read, resampled)]
    assert limits[1].media_key == limits[2].media_key
    assert limits[1].key != limits[2].key


def test_the_command_line_and_a_file_name_a_projector() -> None:
    arguments = ["--projectors.image.type", "resampler", "--projectors.image.queries", "8"]
    config = load_config(SftConfig, None, arguments)
    assert config.projectors == {"image": {"type": "resampler", "queries": 8}}


def test_a_run_with_a_resampler_is_trained_scored_and_talked_to(home: Path) -> None:
    config = sft_settings(home, "resampled", projectors={"audio": RESAMPLER}, max_steps=2)
    results = finetune(config)
    assert results is not None
    entry = results["truncation"]["audio"]
    assert entry["slots"] == 8 * RESAMPLER["queries"] < entry["rows"]
    model, renderer, _ = load_omni(config.out)
    session = ChatSession(model, renderer, max_new_tokens=3)
    for clip in ("0.wav", "7.wav"):
        assert session.attach(home / "data" / "audio" / clip, "audio") == RESAMPLER["queries"]
    "".join(session.ask("what is said?"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"smell": {}}, r"projectors\.smell: the model has no such encoder; it has image, audio"),
        ({"image": {"type": "perceiver"}}, r"projectors\.image\.type: .*'perceiver'; known: mlp,"),
    ],
)
def test_wrong_projectors_of_a_run_are_named(home: Path, given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        finetune(sft_settings(home, "wrong", projectors=given))
