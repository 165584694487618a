"""Exported models load by the Auto classes after ``import omnitune``, which itself stays quick."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_heavy_is_imported() -> None:
    code = "import omnitune, omnitune.cli, sys; print('torch' in sys.modules, 'transformers' in "
    assert run(code + "sys.modules)") == "False False"


@pytest.mark.parametrize(
    "code",
    [
        "import omnitune\nfrom transformers import AutoConfig, AutoProcessor",
        "from transformers import AutoConfig, AutoProcessor\nimport omnitune",
        "import transformers.models.auto.processing_auto\nimport omnitune\n"
        "from transformers import AutoConfig, AutoProcessor",
    ],
)
def test_either_may_be_imported_first(code: str) -> None:
    last = (
        "import sys\nassert not any(name.startswith('omnitune.models') for name in sys.modules)\n"
        "from transformers.models.auto.processing_auto import processor_class_from_name\n"
        "print(processor_class_from_name('OmniProcessor').__name__)\n"
        "print(type(AutoConfig.for_model('omnitune')).__name__)"
    )
    assert run(f"{code}\n{last}").split() == ["OmniProcessor", "OmniConfig"]


def test_help_is_quick() -> None:
    """To import torch or what builds on it takes seconds."""
    code = "import sys\nfrom omnitune.cli import main\nmain(['--help'])\n"
    heavy = "{'torch', 'transformers', 'numpy', 'PIL'}"
    assert run(f"{code}print(sorted({heavy} & set(sys.modules)))").splitlines()[-1] == "[]"
