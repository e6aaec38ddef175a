"""`pool`: whom the router may call, and how."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hierrouter.config.base import MOST_HOPS, Positive, Section, View
from hierrouter.config.model import ModelSpec


class AnswerFormats(Section):
    """How the answer to a benchmark query is to be written, by kind of answer."""

    letter: str = 'End with a line "Answer: X", where X is the letter of the right choice.'
    """Multiple choice: arc_easy, arc_challenge, mmlu."""
    number: str = 'End with a line "Answer: X", where X is the number.'
    """A number: gsm8k, and the scripted queries."""
    math: str = 'End with a line "Answer: X", where X is the result in LaTeX.'
    """A formula: math."""
    unit_tests: str = "Give the complete function in one Python code block."
    """A program that unit tests judge: mbpp."""
    text: str = 'End with a line "Answer: X", where X is the answer.'
    """Any other answer: own tasks with metric exact_match or token_f1."""


class Prompts(Section):
    """What a model is asked at each hop (Appendix B of the paper)."""

    analyze: str = (
        "Describe the problem in detail, then plan how you would solve it. Analyze the problem "
        "step by step, identifying key constraints and requirements."
    )
    """The instruction of the first `analyze` hop (the paper's hop 0)."""
    refine: str = (
        "Check the analysis so far, correct what is wrong in it, and make the plan more precise. "
        "Do not give the final answer yet."
    )
    """The instruction of every later `analyze` hop (the paper states none)."""
    solve: str = (
        "Using the previous analysis and plan, verify if the approach is correct and solve the "
        "problem methodically. Ensure completeness and correctness in your solution."
    )
    """The instruction of a `solve` hop after an analysis (the paper's hop 1)."""
    answer_formats: AnswerFormats = AnswerFormats()
    """How a task's query is to be answered, by kind of answer. Served queries get none."""
    max_context_tokens: Positive = 2048
    """Most tokens of the message to a model (question, replies, instruction, answer format),
    before its chat template; beyond it the oldest reply loses its middle. With the template and
    the reply it must fit into the model's window."""


class EncoderConfig(Section):
    """The frozen encoder of the context (section 3.2)."""

    model: str = "sentence-transformers/all-mpnet-base-v2"
    """A sentence-transformers model (hub id or folder), or `hashing`: scikit-learn's
    HashingVectorizer, which needs no model."""
    revision: str = "main"
    """Commit, tag or branch on the hub; resolved at first use and recorded."""
    max_tokens: Positive = 512
    """Longest text it reads; the rest is cut (section 3.2)."""
    dimensions: Positive = 1024
    """Width of the `hashing` encoder; other encoders have their own."""
    views: Annotated[list[View], Field(min_length=1)] = ["paper", "two_part"]
    """Which views of a context are encoded when a tree is recorded (see `training.view`)."""


class PoolConfig(Section):
    """Whom the router may call, and how."""

    models: list[ModelSpec] = []
    """The M candidate models, in the order of the action space. Only imported outcomes bring models
    of their own along; everything else needs at least one."""
    references: list[ModelSpec] = []
    """Models measured beside the pool by a direct answer, never routed to."""
    hops: Annotated[int, Field(ge=1, le=MOST_HOPS)] = 2
    """L, the most calls a route may make."""
    prompts: Prompts = Prompts()
    """What is asked at each hop."""
    encoder: EncoderConfig = EncoderConfig()
    """What turns a context into the router's state."""
    batch_tokens: Positive = 32_768
    """Most tokens, prompts and replies with padding, that the transformers backend holds at once on
    a processor; a token of a 1.5 billion parameter model takes about 60 kB."""
    queries_per_unit: Positive = 24
    """Queries whose replies are committed together; a kill loses at most one unit of work."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [spec.name for spec in (*self.models, *self.references)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model names must differ; twice: {', '.join(twice)}")
        return self
