"""The router as an MLflow model: MLflow runs this file to load it.

It needs the encoder and the policy, no language model: for each prompt it says which model the
router would call first, and how probable each choice is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from hierrouter.config import MOST_ALPHA, EncoderConfig
from hierrouter.errors import HierRouterError
from hierrouter.learning.actions import ROLES, best_of
from hierrouter.learning.router import Router
from hierrouter.pool.prompts import encoder_text
from hierrouter.routes.encoder import open_matching_encoder
from hierrouter.tracking.values import choices


class FirstDecision(PythonModel):
    """Prompts in; the first model, its role and the probability of every choice out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads policy and encoder.

        Raises:
            HierRouterError: the encoder cannot be had, or is not the one of the training.
        """
        self.router = Router.load(Path(context.artifacts["router"]))
        self.alpha = float(context.model_config["alpha"])
        encoder = self.router.info.encoder
        config = EncoderConfig.model_validate(encoder["config"])
        self.encoder = open_matching_encoder(config, encoder["identity"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The first decision for each prompt.

        Args:
            context: MLflow's; not used.
            model_input: a data frame with `prompt` and, if wanted, `alpha` (the headline alpha of
                the evaluation where it is missing).
            params: not used.

        Returns:
            N rows: `model`, `role`, and for each choice `MODEL/role` its probability.

        Raises:
            HierRouterError: an alpha is out of range.
        """
        count = len(model_input)
        named = choices(self.router.info)
        alphas = np.full(count, self.alpha)
        if "alpha" in model_input:
            alphas = model_input["alpha"].astype(float).fillna(self.alpha).to_numpy()
        if not ((alphas >= 0) & (alphas <= MOST_ALPHA)).all():
            raise HierRouterError(f"alpha: give numbers from 0 to {MOST_ALPHA:,}")
        vectors = self.encoder.encode([encoder_text(text) for text in model_input["prompt"]])
        scores = np.zeros((count, 2 * len(self.router.info.models) + 1), dtype=np.float32)
        for alpha in np.unique(alphas):
            rows = np.flatnonzero(alphas == alpha)
            asked, free = vectors[rows], np.zeros(len(rows))
            scores[rows] = self.router.scores(asked, asked, 0, free, float(alpha))
        action = best_of(scores)
        columns: dict[str, Any] = {
            "model": [self.router.info.models[number] for number in action // 2],
            "role": [ROLES[number] for number in action % 2],
        }
        for name, number in named.items():
            columns[name] = np.exp(scores[:, number].astype(float))
        return pd.DataFrame(columns)


set_model(FirstDecision())
