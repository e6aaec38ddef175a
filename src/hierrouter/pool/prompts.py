"""What a model is asked: pure functions from a context to a user message, nothing else.

The context of hop l is the query followed by the replies so far. A model reads it as one user
message: the question, the labelled replies, the instruction of the hop and, for benchmark
queries, the form of the answer. The encoder reads the question and the replies only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hierrouter.config import ModelSpec, Prompts

Role = Literal["analyze", "solve"]
"""What a call is asked for: `analyze` (more is to come) or `solve` (an answer)."""

GAP = " […] "
"""Stands where the middle of a long reply was left out."""

_LABELS: dict[Role, str] = {"analyze": "Analysis", "solve": "Answer"}


def _labelled(replies: Sequence[tuple[Role, str]]) -> list[str]:
    """The replies under a heading each: no model names, so that equal replies read alike."""
    numbered = len(replies) > 1
    return [
        f"{_LABELS[role]}{f' {number}' if numbered else ''}:\n{text}"
        for number, (role, text) in enumerate(replies, start=1)
    ]


def encoder_text(question: str, replies: Sequence[tuple[Role, str]] = ()) -> str:
    """The context c_l as the encoder sees it (section 3.2): the question, then the replies.

    Instruction and answer format are left out, since they would tell the encoder the task.
    """
    return "\n\n".join([question, *_labelled(replies)])


def whole_message(
    question: str, replies: Sequence[tuple[Role, str]], instruction: str, answer_format: str
) -> str:
    """The user message of one call, however long it is; arguments as for `build_message`."""
    context = encoder_text(question, replies)
    ending = "\n".join(part for part in (instruction, answer_format) if part)
    return f"{context}\n\n{ending}" if ending else context


def build_message(
    question: str,
    replies: Sequence[tuple[Role, str]],
    instruction: str,
    answer_format: str,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> str:
    """The user message of one call.

    Args:
        question: the query's text.
        replies: role and text of each earlier call, oldest first.
        instruction: what is wanted of this call, or nothing.
        answer_format: how a benchmark answer is to be written, or nothing.
        count_tokens: number of tokens of a text, for the model that is asked.
        max_tokens: longest message in those tokens. Beyond it the oldest reply loses its middle
            (marked `GAP`), then the next oldest, as little as makes the message fit.

    Raises:
        HierRouterError: the message does not fit even with every reply left out: a question is
            never cut.
    """
    texts = [text for _, text in replies]

    def message() -> str:
        shortened = [(role, text) for (role, _), text in zip(replies, texts, strict=True)]
        return whole_message(question, shortened, instruction, answer_format)

    for index, text in enumerate(texts):
        if count_tokens(message()) <= max_tokens:
            break
        fits, too_many = 0, len(text)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            texts[index] = without_middle(text, middle)
            if count_tokens(message()) <= max_tokens:
                fits = middle
            else:
                too_many = middle
        texts[index] = without_middle(text, fits)
    whole = message()
    if (tokens := count_tokens(whole)) > max_tokens:
        raise HierRouterError(
            f"a question takes {tokens} tokens with its instruction and pool.prompts."
            f'max_context_tokens is {max_tokens}; raise it ("{question[:60].strip()} …")'
        )
    return whole


def without_middle(text: str, kept: int) -> str:
    """The first and last characters of a text, `kept` together, with the gap between."""
    tail = kept // 2
    return text[: kept - tail] + GAP + text[len(text) - tail :]


def instruction_for(
    prompts: Prompts, spec: ModelSpec, hop: int, role: Role, any_before: bool
) -> str:
    """The instruction of one call (Appendix B).

    Args:
        prompts: the pool's instructions.
        spec: the model that is asked.
        hop: hop index l, from 0.
        role: what is wanted.
        any_before: whether the message holds an earlier reply.
    """
    if role == "analyze":
        return prompts.analyze if hop == 0 else prompts.refine
    return " ".join(
        part for part in (prompts.solve if any_before else "", spec.instruction) if part
    )


def limit_for(spec: ModelSpec, role: Role, task: str | None) -> int:
    """The most new tokens of one call; a served query (`task` none) has the default limit."""
    if role == "analyze":
        return spec.limits.analyze
    return spec.limits.solve_by_task.get(task or "", spec.limits.solve)
