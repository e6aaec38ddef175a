"""Preparing weights: folders as they are, GGUF files converted once, whole or not at all."""

import os
import subprocess
import sys

import pytest

from hierrouter import hub
from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError
from hierrouter.pool.transformers_backend import TransformersBackend
from hierrouter.pool.weights import convert_once, prepare

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"

KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import transformers
from hierrouter.pool.weights import convert_once

save = transformers.PreTrainedModel.save_pretrained

def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

transformers.PreTrainedModel.save_pretrained = save_and_die
convert_once(Path(sys.argv[1]), Path(sys.argv[2]), "Smol", "d" * 64)
"""

PREPARE_CHEAPLY = """
import sys
from hierrouter.config import ModelSpec
from hierrouter.pool.open import identity
from hierrouter.pool.weights import prepare

spec = ModelSpec(name="m", model=sys.argv[1], base_rate=1)
print(prepare(spec).folder)
identity(spec)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_a_folder_with_safetensors_is_used_as_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path))
    prepared = prepare(ModelSpec(name="m", model=str(tiny), base_rate=1))
    assert prepared.folder == tiny
    assert prepared.provenance["source"] == "folder"
    assert prepared.provenance["digest"] == prepared.weights_digest


def test_preparing_what_is_there_loads_no_library_of_models(tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_CHEAPLY, str(tiny)],
        env={**os.environ, "HIERROUTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tiny)


def test_a_folder_with_several_gguf_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(HierRouterError, match=r"model m: .* holds 2 GGUF files"):
        prepare(ModelSpec(name="m", model=str(tmp_path), base_rate=1))


def test_weights_without_a_configuration_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))
    (tmp_path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    with pytest.raises(HierRouterError, match=r"holds no config\.json"):
        prepare(ModelSpec(name="m", model=str(tmp_path), base_rate=1))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_a_damaged_gguf_file_is_one_clear_line_and_leaves_nothing(tmp_path, content):
    gguf, cache = tmp_path / "model.gguf", tmp_path / "converted"
    gguf.write_bytes(content)
    with pytest.raises(HierRouterError, match="cannot convert") as caught:
        convert_once(gguf, cache, "Model", "d" * 64)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.real_model
def test_a_conversion_killed_in_the_middle_is_done_anew(tmp_path):
    gguf = next(hub.fetch_model(SMOL).folder.glob("*.gguf"))
    died = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(gguf), str(tmp_path)])
    assert died.returncode == -9
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []

    folder = convert_once(gguf, tmp_path, "Smol", "d" * 64)
    # The lock file is all that stays beside the result.
    assert [path.name for path in tmp_path.glob(".*") if path.suffix != ".lock"] == []
    backend = TransformersBackend(folder, "smol", 6144, "float32")
    prompt = backend.render("What is the capital of France?")
    assert backend.generate([prompt], [16])[0].reply == "The capital of France is Paris."

    gguf_is_not_read_again = tmp_path / "gone.gguf"
    assert convert_once(gguf_is_not_read_again, tmp_path, "Smol", "d" * 64) == folder
