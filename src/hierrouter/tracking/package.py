"""Packing a router as an MLflow model that carries its own code."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hierrouter
from hierrouter.tracking.values import choices

if TYPE_CHECKING:
    from hierrouter.learning.router import RouterInfo

ROUTER_FILES = ("router.json", "router.safetensors", "learning_curve.json", "README.md")
"""What is taken of a router's folder; whatever else lies there stays there."""
REQUIREMENTS = (
    "huggingface-hub",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "transformers",
)
"""What the first decision needs at run time."""


def copy_router(source: Path, target: Path, card: str) -> Path:
    """Copies the files of a router to `target`, with another model card."""
    target.mkdir(parents=True)
    for name in ROUTER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    (target / "README.md").write_text(card, encoding="utf-8")
    return target


def code_folders(target: Path) -> list[str]:
    """Copies this library under `target`; it is on no package index.

    Returns:
        The package and its metadata, which its version is read from.
    """
    package = target / "hierrouter"
    shutil.copytree(
        Path(hierrouter.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    metadata = target / f"hierrouter-{hierrouter.__version__}.dist-info"
    metadata.mkdir()
    text = distribution("hierrouter").read_text("METADATA") or (
        f"Metadata-Version: 2.1\nName: hierrouter\nVersion: {hierrouter.__version__}\n"
    )
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    return [str(package), str(metadata)]


def requirements() -> list[str]:
    """The exact versions in use; a build such as +cpu is not part of one."""
    return [f"{name}=={re.sub(r'[+].*', '', version(name))}" for name in REQUIREMENTS]


def log_router_model(info: RouterInfo, folder: Path, alpha: float, code: Path) -> Any:
    """Logs the router as a models-from-code pyfunc in the active run.

    Args:
        info: the router's description.
        folder: the router, in a folder named `router`.
        alpha: taken where a request names none.
        code: a new folder, for a copy of this library.

    Returns:
        MLflow's ModelInfo.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text, number = DataType.string, DataType.double
    example = pd.DataFrame({"prompt": ["What is 6 times 7?"], "alpha": [alpha]})
    return mlflow.pyfunc.log_model(
        name="hierrouter",
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"router": str(folder)},
        code_paths=code_folders(code),
        pip_requirements=requirements(),
        model_config={"alpha": alpha},
        signature=ModelSignature(
            inputs=Schema(
                [ColSpec(text, name="prompt"), ColSpec(number, name="alpha", required=False)]
            ),
            outputs=Schema(
                [
                    ColSpec(text, name="model"),
                    ColSpec(text, name="role"),
                    *(ColSpec(number, name=name) for name in choices(info)),
                ]
            ),
        ),
        input_example=example,
    )
