"""Sets whose sounds and words lie in different files, in the form in which each is given away."""

import gzip
import io
import json
import tarfile
import unicodedata
from pathlib import Path

import pytest
from helpers import write_wave

from omnitune.data.reading import DataPlace, read_available
from omnitune.data.sources.finding import find_files
from omnitune.data.sources.spoken_sets.name_lists import list_of_names
from omnitune.media.audio import duration
from omnitune.sample import UserError
from omnitune.sources import Source

Read = tuple[str, str, str, str]  # the end of the sound's path, what is learnt, split, task
W, CAPTION, ASKED, TRANSLATED = "transcription", "captioning", "audio_qa", "translation"
AUTO = "*"  # a split that nobody says


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def read(path: Path) -> list[Read]:
    [samples] = read_available(DataPlace(None, {"s": Source("s", path=str(path))})).values()
    found = []
    for sample in samples:
        [medium], [(task, _)] = sample.media, sample.task_counts()
        answer = sample.messages[-1].text
        found.append((medium.path.as_posix(), answer, sample.split, task))
    return found


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def recording(name: str) -> dict[str, object]:
    source = {"type": "file", "channels": [0], "source": f"{name}.wav"}
    return {"id": name, "sources": [source], "sampling_rate": 16000, "duration": 9.0}


SEGMENTS = [
    {"sid": "a", "begin_time": 0, "end_time": 1.5, "text_tn": "GO <COMMA> ON", "subsets": ["{XL}"]},
    {"sid": "b", "begin_time": 2, "end_time": 3, "text_tn": "<MUSIC>", "subsets": ["{XL}"]},
    {"sid": "c", "begin_time": 4, "end_time": 5, "text_tn": "STOP", "subsets": ["{DEV}"]},
]
SETS: dict[str, tuple[dict[str, str], list[Read]]] = {
    "ljspeech": (
        {"wavs/LJ-1.wav": "", "metadata.csv": 'LJ-1|In 2 "parts, so|In two "parts, so\n'},
        [("wavs/LJ-1.wav", 'In two "parts, so', AUTO, W)],
    ),
    "aishell": (
        {
            **{f"wav/{s}/S1/B{s}.wav": "" for s in ("train", "dev")},
            "transcript/aishell_transcript_v0.8.txt": "Btrain 而 对\nBdev 楼市 成交\n",
        },
        [("train/S1/Btrain.wav", "而 对", "train", W), ("Bdev.wav", "楼市 成交", "validation", W)],
    ),
    "mls": (
        {
            **{f"{s}/audio/1/2/1_2_0.flac": "" for s in ("train", "test")},
            **{f"{s}/transcripts.txt": f"1_2_0\tjak {s}\n" for s in ("train", "test")},
            "train/segments.txt": "1_2_0\thttp://a.org/x.mp3\t1.0\t2.0\n",
        },
        [
            ("test/audio/1/2/1_2_0.flac", "jak test", "test", W),
            ("train/audio/1/2/1_2_0.flac", "jak train", "train", W),
        ],
    ),
    "fleurs": (
        {
            **{f"audio/{s}/7{s}.wav": "" for s in ("train", "test")},
            "test.tsv": '3\t7test.wav\tEs "ist".\tes ist\te s | i\t16\tMALE\n',
            "train.tsv": "3\t7train.wav\tSo.\tso\ts o |\t16\tFEMALE\n",
        },
        [("test/7test.wav", "es ist", "test", W), ("train/7train.wav", "so", "train", W)],
    ),
    "voxpopuli": (
        {
            "2009/2009-en:09_0.ogg": "",
            "asr_dev.tsv": "id\traw_text\tnormalized_text\tspeaker_id\tsplit\n"
            "2009-en:09_0\tMr. P.\tmr. p.\t1\tdev\n",
        },
        [("2009/2009-en:09_0.ogg", "mr. p.", "validation", W)],
    ),
    "spgispeech": (
        {
            **{f"{s}/9d/0.wav": "" for s in ("train", "val")},
            **{f"{s}.csv": f"wav_filename|wav_filesize|transcript\n9d/0.wav|9|Go, {s}\n"
               for s in ("train", "val")},
        },
        [
            ("train/9d/0.wav", "Go, train", "train", W),
            ("val/9d/0.wav", "Go, val", "validation", W),
        ],
    ),
    "arctic": (
        {"wav/arctic_a1.wav": "", "etc/txt.done.data": '( arctic_a1 "Author, etc." )\n'},
        [("wav/arctic_a1.wav", "Author, etc.", AUTO, W)],
    ),
    "jsut": (
        {"wav/BASIC_1.wav": "", "transcript_utf8.txt": "BASIC_1:水を\n"},
        [("wav/BASIC_1.wav", "水を", AUTO, W)],
    ),
    "libritts": (
        {
            "dev-clean/8/8_0.wav": "",
            "dev-clean/8/8_0.original.txt": 'He, "0"',
            "dev-clean/8/8_0.normalized.txt": "He zero",
            "dev-clean/8/8.trans.tsv": '8_0\tHe, "0"\tHe zero\n',
            "dev-clean/8/8.book.tsv": "8_0\tHe\tHe\t1.0\n",
        },
        [("dev-clean/8/8_0.wav", "He zero", "validation", W)],
    ),
    "vctk": (
        {
            **{f"wav48_silence_trimmed/p1/p1_1_mic{n}.flac": "" for n in (1, 2)},
            "txt/p1/p1_1.txt": "Call Stella.\n",
            "speaker-info.txt": "ID AGE\np1 23\n",
        },
        [("p1_1_mic1.flac", "Call Stella.", AUTO, W)],
    ),
    "timit": (
        {
            **{f"{s}/DR1/F/SA1.WAV": "" for s in ("TRAIN", "TEST")},
            **{f"{s}/DR1/F/SA1.PHN": "0 9 h#\n" for s in ("TRAIN", "TEST")},
            **{f"{s}/DR1/F/SA1.TXT": f"0 9 She {s}.\n" for s in ("TRAIN", "TEST")},
        },
        [
            ("TEST/DR1/F/SA1.WAV", "She TEST.", "test", W),
            ("TRAIN/DR1/F/SA1.WAV", "She TRAIN.", "train", W),
        ],
    ),
    "thchs": (
        {
            "data/A1.wav": "",
            "data/A1.wav.trn": "绿 是\nlv4 shi4\nl v4\n",
            "test/A1.wav": "",
            "test/A1.wav.trn": "../data/A1.wav.trn\n",
        },
        [("test/A1.wav", "绿 是", "test", W)],
    ),
    "emilia": (
        {"a.mp3": "", "a.json": '{"text": " Help.", "language": "en", "dnsmos": 3}'},
        [("a.mp3", "Help.", AUTO, W)],
    ),
    "srt": (
        {
            "t.mp3": "",
            "t.en.srt": "1\n00:00:00,500 --> 00:00:01,000\nHello\n<i>there</i>.\n\n"
            "2\n00:00:01,000 --> 00:00:01,500\n\n",
        },
        [("t.mp3::t=0.5,1", "Hello there.", AUTO, W)],
    ),
    "vtt": (
        {
            "t.wav": "",
            "t.vtt": "WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.250 align:start\n<v Bob>Bye.\n",
        },
        [("t.wav::t=1,2.25", "Bye.", AUTO, W)],
    ),
    "textgrid": (
        {
            "t.wav": "",
            "t.TextGrid": 'item [1]:\nclass = "IntervalTier"\nname = "words"\nxmin = 0\nxmax = 3\n'
            'intervals [1]:\nxmin = 0\nxmax = 1\ntext = ""\nintervals [2]:\nxmin = 1\nxmax = 3\n'
            'text = "say ""a"""\n',
        },
        [("t.wav::t=1,3", 'say "a"', AUTO, W)],
    ),
    "tedlium": (
        {
            "train/sph/Al.sph": "",
            "train/stm/Al.stm": ";; x\nAl 1 Al 0.00 1.50 <o,f0,male> with clips\n"
            "Al 1 inter_segment_gap 1.5 2 <o,,unknown> ignore_time_segment_in_scoring\n",
        },
        [("train/sph/Al.sph::t=0,1.5", "with clips", AUTO, W)],
    ),
    "kaldi": (
        {
            "audio/r1.wav": "",
            "audio/r2.flac": "",
            "data/train/wav.scp": "r1 audio/r1.wav\nr2 flac -c -d -s audio/r2.flac |\n",
            "data/train/segments": "u1 r1 0.5 1\nu2 r2 0 1\n",
            "data/train/text": "u1 hello there\nu2 bye\n",
            "data/train/utt2spk": "u1 s\nu2 s\n",
        },
        [("r1.wav::t=0.5,1", "hello there", AUTO, W), ("r2.flac::t=0,1", "bye", AUTO, W)],
    ),
    "gigaspeech": (
        {
            "audio/p/POD1.opus": "",
            "GigaSpeech.json": json.dumps(
                {"dataset": "G", "audios": [{"path": "audio/p/POD1.opus", "segments": SEGMENTS}]}
            ),
        },
        [
            ("POD1.opus::t=0,1.5", "GO, ON", "train", W),
            ("POD1.opus::t=4,5", "STOP", "validation", W),
        ],
    ),
    "lhotse": (
        {
            "r.wav": "",
            "x_recordings_dev.jsonl": jsonl(recording("r")),
            "x_supervisions_dev.jsonl": jsonl(
                {"id": "s", "recording_id": "r", "start": 1.0, "duration": 2.5, "text": "bye"}
            ),
        },
        [("r.wav::t=1,3.5", "bye", "validation", W)],
    ),
    "esc50": (
        {
            "audio/1-0-A-0.wav": "",
            "meta/esc50.csv": "filename,fold,target,category,esc10\n1-0-A-0.wav,1,0,dog,True\n",
        },
        [("audio/1-0-A-0.wav", "dog", AUTO, ASKED)],
    ),
    "urbansound": (
        {
            "audio/fold5/9-3.wav": "",
            "metadata/UrbanSound8K.csv": "slice_file_name,fsID,start,end,fold,classID,class\n"
            "9-3.wav,9,58.5,62.5,5,3,dog_bark\n",
        },
        [("audio/fold5/9-3.wav", "dog_bark", AUTO, ASKED)],
    ),
    "clotho": (
        {
            "development/A b.wav": "",
            "clotho_captions_development.csv": 'file_name,caption_1,caption_2\nA b.wav,"a, b",c\n',
        },
        [("development/A b.wav", "a, b", "validation", CAPTION)],
    ),
    "audiocaps": (
        {
            "audio/91.wav": "",
            "train.csv": "audiocap_id,youtube_id,start_time,caption\n91,r1,3,A b\n",
        },
        [("audio/91.wav", "A b", AUTO, CAPTION)],
    ),
    "covost": (
        {
            "clips/en_1.mp3": "",
            "covost_v2.en_de.train.tsv": "path\tsentence\ttranslation\tclient_id\n"
            "en_1.mp3\tYes.\tJa.\tx\n",
        },
        [("clips/en_1.mp3", "Ja.", AUTO, TRANSLATED)],
    ),
    "speech_commands": (
        {
            **{f"{name}.wav": "" for name in ("yes/a_0", "yes/b_0", "no/a_0", "_noise_/c")},
            "testing_list.txt": "no/a_0.wav\n",
            "validation_list.txt": "yes/b_0.wav\n",
        },
        [
            ("no/a_0.wav", "no", "test", ASKED),
            ("yes/a_0.wav", "yes", "train", ASKED),
            ("yes/b_0.wav", "yes", "validation", ASKED),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_read_as_it_is_given_away(name: str, tmp_path: Path) -> None:
    files, expected = SETS[name]
    found = read(put(tmp_path / "set", files))
    assert len(found) == len(expected)
    for (path, *learnt), (end, *told) in zip(found, expected, strict=True):
        assert path.endswith(end)
        assert learnt == [
            seen if say == AUTO else say for seen, say in zip(learnt, told, strict=True)
        ]


def test_a_list_is_read_alone_too(tmp_path: Path) -> None:
    files, _ = SETS["aishell"]
    folder = put(tmp_path, files)
    [first, second] = read(folder / "transcript" / "aishell_transcript_v0.8.txt")
    assert (first[1], second[1]) == ("而 对", "楼市 成交")
    files, _ = SETS["kaldi"]
    assert len(read(put(tmp_path / "k", files) / "data" / "train" / "wav.scp")) == 2


def test_the_folder_of_a_fairseq_list_is_its_first_line(tmp_path: Path) -> None:
    put(tmp_path, {"a/1.flac": "", "m/train.tsv": f"{tmp_path}/a\n1.flac\t9\n"})
    put(tmp_path, {"m/train.ltr": "G O | O N |\n", "m/dict.ltr.txt": "| 9\n"})
    [(path, answer, _, task)] = read(tmp_path / "m")
    assert (path, answer, task) == (str(tmp_path / "a" / "1.flac"), "GO ON", W)


def test_sounds_in_the_tar_files_of_nemo(tmp_path: Path) -> None:
    write_wave(tmp_path / "x.wav")
    for shard in (0, 1):
        with tarfile.open(tmp_path / f"audio_{shard}.tar", "w") as tar:
            tar.add(tmp_path / "x.wav", f"a{shard}.wav")
    (tmp_path / "x.wav").unlink()
    rows = [
        {"audio_filepath": f"a{n}.wav", "text": f"words {n}", "duration": 0.5, "shard_id": n}
        for n in (0, 1)
    ]
    put(tmp_path, {"tarred_audio_manifest.json": jsonl(*rows)})
    for n, row in enumerate(rows):
        put(tmp_path, {f"sharded_manifests/manifest_{n}.json": jsonl(row)})
    [samples] = read_available(DataPlace(None, {"s": Source("s", path=str(tmp_path))})).values()
    assert [sample.messages[-1].text for sample in samples] == ["words 0", "words 1"]
    paths = [medium.path for sample in samples for medium in sample.media]
    assert [str(path).partition("::")[0] for path in paths] == [
        str(tmp_path / "audio_0.tar"),
        str(tmp_path / "audio_1.tar"),
    ]
    assert all(duration(path) == 0.5 for path in paths)


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "speakers, and words in an unknown form": (
        {"S1/a.wav": "", "S2/b.wav": "", "w.mlf": '"a.lab" hello you\n"b.lab" good bye\n'},
        r"w\.mlf: seems to say what is heard .* \"format\": \"labelled\"",
    ),
    "words between pinyin": (
        {"wav/a1.wav": "", "content.txt": "a1.wav\t广 guang3 州 zhou1\n"},
        "words stand between their pinyin",
    ),
    "two different words": (
        {"a1.wav": "", "transcript.txt": "a1.wav|医者は探り|isha wa|1.0\n"},
        "both hold words, and other ones",
    ),
    "classes in a list": (
        {
            **{f"audio/b{n}.wav": "" for n in range(4)},
            "meta.txt": "".join(f"audio/b{n}.wav\tbeach\n" for n in range(4)),
        },
        "may be a class, and no words",
    ),
    "sounds without words": (
        {"1/a.flac": "", "1/a.json": '{"speaker": "1", "snr": 3}'},
        "has no words of its sound",
    ),
    "several lists": (
        {"a1.wav": "", "x.txt": "a1 hello\n", "y.txt": "a1 good bye\n"},
        r"holds several lists \(x\.txt, y\.txt\)",
    ),
    "a command": (
        {"a.wav": "", "wav.scp": "u sox a.wav -t wav - speed 1.1 |\n", "text": "u hi\n"},
        "none that only decodes one file",
    ),
    "an archive": ({"wav.scp": "u raw.ark:17\n", "text": "u hi\n"}, "archive of Kaldi's"),
    "a recording that is not listed": (
        {"a.wav": "", "wav.scp": "u a.wav\n", "text": "v hi\n"},
        "has no utterance v",
    ),
    "several tiers": (
        {
            "t.wav": "",
            "t.TextGrid": "".join(
                f'class = "IntervalTier"\nname = "{n}"\nxmin = 0\nxmax = 1\ntext = "a"\n'
                for n in ("words", "phones")
            ),
        },
        r'has 2 tiers with words \("words", "phones"\)',
    ),
    "a name of two sounds": (
        {"a/1x.wav": "", "b/1x.wav": "", "list.txt": "1x hello\n"},
        "2 sounds are called 1x",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_know_is_refused(name: str, tmp_path: Path) -> None:
    files, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        read(put(tmp_path, files))


def test_folders_are_classes_if_the_user_says_so(tmp_path: Path) -> None:
    files, _ = REFUSED["speakers, and words in an unknown form"]
    source = Source("s", path=str(put(tmp_path, files)), format="labelled")
    assert find_files(source).read_as.startswith("a folder of media by class")


def test_a_sound_that_is_not_there_is_not_left_out(tmp_path: Path) -> None:
    put(tmp_path, {"wavs/L1.wav": "", "metadata.csv": "L1|one|one\nL2|two|two\n"})
    assert [Path(path).name for path, *_ in read(tmp_path)] == ["L1.wav", "L2.wav"]


def test_the_last_field_of_a_table_may_be_empty(tmp_path: Path) -> None:
    rows = 'id\ttext\taccent\nx1\tsaid "so\t\n'
    [(_, answer, _, _)] = read(put(tmp_path, {"a/x1.ogg": "", "asr_dev.tsv": rows}))
    assert answer == 'said "so'


def test_a_header_is_no_sound(tmp_path: Path) -> None:
    """Common Voice's lengths of clips once became transcripts."""
    put(tmp_path, {"clips/a1.mp3": "", "clip_durations.tsv": "clip\tduration[ms]\na1.mp3\t1000\n"})
    assert list_of_names(tmp_path / "clip_durations.tsv") is None


def test_a_release_of_common_voice_is_read_from_above(tmp_path: Path) -> None:
    rows = "client_id\tpath\tsentence\tlocale\n1\ta.mp3\tHallo.\tde\n"
    put(tmp_path, {f"cv-17/de/{name}": rows for name in ("train.tsv", "test.tsv")})
    put(
        tmp_path,
        {"cv-17/de/clips/a.mp3": "", "cv-17/de/clip_durations.tsv": "clip\tms\na.mp3\t9\n"},
    )
    assert [split for _, _, split, _ in read(tmp_path)] == ["train", "test"]


def test_recordings_and_supervisions_may_be_packed(tmp_path: Path) -> None:
    files, expected = SETS["lhotse"]
    for name, text in files.items():
        if name.endswith(".jsonl"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            put(tmp_path, {name: text})
    assert [answer for _, answer, _, _ in read(tmp_path)] == [expected[0][1]]


def test_a_new_sound_is_seen_at_the_next_look(tmp_path: Path) -> None:
    put(tmp_path, {"1/a.wav": "", "1/a.txt": "one"})
    assert len(read(tmp_path)) == 1
    put(tmp_path, {"2/b.wav": "", "2/b.txt": "two"})
    assert len(read(tmp_path)) == 2


def test_a_packed_folder_is_no_shard(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "dev.tar", "w") as tar:
        for name in ("1-2-0.flac", "1-2.trans.txt"):
            member = tarfile.TarInfo(f"dev/{name}")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"abcd"))
    with pytest.raises(UserError, match="packed folder, unpack it and name the folder"):
        read(tmp_path / "dev.tar")


def test_accents_are_written_in_two_ways(tmp_path: Path) -> None:
    """Names that macOS wrote have a letter and its accent apart."""
    apart = unicodedata.normalize("NFD", "caf\u00e91.wav")
    put(tmp_path, {f"wavs/{apart}": "", "metadata.csv": "caf\u00e91|one|one\n"})
    assert [Path(path).name for path, *_ in read(tmp_path)] == [apart]
