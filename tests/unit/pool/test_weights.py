"""Preparing weights: folders as they are, GGUF files converted once, whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from hierrouter import hub
from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError
from hierrouter.files import digest_of
from hierrouter.mirror import find
from hierrouter.pool.transformers_backend import TransformersBackend
from hierrouter.pool.weights import CONVERSION, convert_once, mirrored, openvino_digest, prepare

STUDY = Path(__file__).parents[3] / "studies" / "small_pool"
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

CONVERT_IN_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from hierrouter.errors import HierRouterError
from hierrouter.pool.weights import convert_once

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    convert_once(Path(sys.argv[1]), Path(sys.argv[2]), "Tiny", "d" * 64)
except HierRouterError as error:
    print(f"{type(error).__name__}: {error}")
"""

PREPARE_CHEAPLY = """
import sys
from hierrouter.config import ModelSpec
from hierrouter.pool.open import identity
from hierrouter.pool.weights import prepare

spec = ModelSpec(name="m", model=sys.argv[1], base_rate=1, backend="transformers")
print(prepare(spec).folder)
identity(spec)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_weights_of_the_mirror_are_known_in_every_form_that_they_are_loaded_in():
    raw = find(SMOL).sha256
    converted = digest_of([CONVERSION, raw])
    for weights in (raw, converted, openvino_digest(raw), openvino_digest(converted)):
        assert mirrored(SMOL, weights) == raw
        assert mirrored("org/unknown", weights) is None
    assert mirrored(SMOL, "0" * 64) is None
    assert mirrored(SMOL, None) is None


def test_the_study_in_the_repository_knows_its_weights_as_the_mirrors():
    """Else `make run` takes the hub's wherever it is reached, and is refused."""
    info = json.loads((STUDY / "tree.json").read_text())
    for spec in info["pool"]["models"]:
        weights = info["made"]["models"][spec["name"]]["weights"]
        assert mirrored(spec["model"], weights) == find(spec["model"]).sha256
    assert info["encoder"]["digest"] == find(info["encoder"]["model"]).sha256
    for source in info["data"]["tasks"].values():
        assert source["sha256"] == find("benchmarks").sha256


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


def write_gguf(path):
    """A one-layer Llama of ones, without a tokenizer: the weights are saved before it is read."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(4000)
    shapes = {"token_embd": (4000, 32), "output_norm": (32,), "output": (4000, 32)}
    shapes |= {f"blk.0.{name}": (32,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_disk_that_is_full_while_weights_are_written_is_one_clear_line(tmp_path):
    """The largest file that the process may write stands for the room on the disk."""
    source, cache = tmp_path / "model.gguf", tmp_path / "converted"
    write_gguf(source)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT_IN_LITTLE_ROOM, str(source), str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip().splitlines()[-1]
    assert line.startswith(f"HierRouterError: cannot convert {source}: ")
    assert "File too large" in line
    assert f"make room under {cache} (set HIERROUTER_HOME for another place)" in line
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
