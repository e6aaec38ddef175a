"""`pool.models`: one model, how it is asked, where it runs and what it costs."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from hierrouter.config.base import Name, Positive, Section


class TokenLimits(Section):
    """How long a reply may be, in new tokens."""

    solve: Positive = 512
    """Most new tokens of an answer."""
    solve_by_task: dict[Name, Positive] = {}
    """Other limits for the answers of some tasks."""
    analyze: Positive = 256
    """Most new tokens of an analysis."""


class ScriptedSkills(Section):
    """What a scripted model can do. Each chance is decided by a hash, so runs repeat exactly."""

    solve: dict[Name, Annotated[float, Field(ge=0, le=1)]] = {}
    """Chance of a right direct answer, by task. Tasks not named: `solve_otherwise`."""
    solve_otherwise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Chance of a right direct answer on every other task."""
    reads_marker: str = ""
    """The marker word in a query that lets this model's analysis reveal the query's clue."""
    uses_clue: str = ""
    """The clue word in an earlier reply with which this model always solves the query."""
    words: Positive = 20
    """Length of its answers, in words (a scripted token is a word)."""


class Endpoint(Section):
    """An OpenAI-compatible server that answers for a model."""

    url: str
    """Its base address, up to and including /v1, for example http://localhost:8000/v1. No user and
    password in it: it is recorded."""
    served_name: str = ""
    """What the server calls the model; empty: the model's own id."""
    api_key_env: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """The environment variable that holds the key; empty, or not set: none is sent."""
    concurrency: Annotated[int, Field(gt=0, le=1000)] = 32
    """Calls under way at the same time."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that one try of a call may take, until the reply is complete."""
    retries: Annotated[int, Field(ge=0, le=100)] = 20
    """Further tries after a refused or broken connection, a time-out (6 at most), and 408, 409, 429
    and 5xx: after growing waits of up to 8 seconds, some 2 minutes in all, or when the server's
    Retry-After of up to 2 minutes says; where it says more the call fails at once. Live, where
    somebody waits, 2 at most."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        # Reading the port says whether it is one.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not usable or "@" in parts.netloc or any(letter.isspace() for letter in url):
            raise ValueError("give http(s)://HOST[:PORT]/v1, without user and password")
        return url


class ModelSpec(Section):
    """One model of the pool: weights, how it is asked for an answer, limits and price."""

    name: Name
    """What it is called in routes, metrics and pictures."""
    model: Annotated[str, Field(min_length=1)]
    """A Hugging Face model id, or a local folder with safetensors and a tokenizer. For the
    `scripted` backend any word."""
    revision: str = "main"
    """Commit, tag or branch on the hub; resolved to a commit at first use and recorded. With
    `backend: openai` model and revision are all that tells one model from another: change the
    revision when the server runs other weights."""
    backend: Literal["auto", "transformers", "openvino", "openai", "scripted", "imported"] = "auto"
    """What runs it. `auto`: openvino on a processor where it is installed and `dtype` leaves it
    the choice, else transformers; what an existing tree or router was made with stays. `openai`:
    the server at `endpoint`. `imported`: nothing; its outcomes are imported
    (`hierrouter import-outcomes`)."""
    endpoint: Endpoint | None = None
    """Where the model is served; only with `backend: openai`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Number format of the weights. `auto`: int8 with openvino; with transformers bfloat16 where
    the processor is fast at it. `int8` goes with openvino alone."""
    instruction: str = ""
    """Added after the question when an answer is wanted, for example "Think step by step."."""
    limits: TokenLimits = TokenLimits()
    """How long its replies may be."""
    billion_parameters: Annotated[float, Field(gt=0)] | None = None
    """Size; gives the rate (0.001 dollars per billion parameters) where none is stated."""
    base_rate: Annotated[float, Field(ge=0)] | None = None
    """Dollars per 1,000 tokens, read and written alike (the paper's base_rate(m))."""
    scripted: ScriptedSkills | None = None
    """Skills of a scripted model; only with `backend: scripted`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.base_rate is None and self.billion_parameters is None:
            raise ValueError(f"model {self.name}: give base_rate or billion_parameters")
        if (self.backend == "scripted") != (self.scripted is not None):
            raise ValueError(f"model {self.name}: `scripted` goes with `backend: scripted`")
        if (self.backend == "openai") != (self.endpoint is not None):
            raise ValueError(f"model {self.name}: `endpoint` goes with `backend: openai`")
        if self.backend == "openvino" and self.dtype not in ("auto", "int8"):
            raise ValueError(f"model {self.name}: with `backend: openvino` dtype is int8")
        if self.backend == "transformers" and self.dtype == "int8":
            raise ValueError(f"model {self.name}: `dtype: int8` goes with `backend: openvino`")
        return self

    @property
    def rate(self) -> float:
        """Dollars per 1,000 tokens."""
        if self.base_rate is not None:
            return self.base_rate
        return 0.001 * (self.billion_parameters or 0.0)
