"""Whether every prompt will fit, told before the first reply is paid for.

A question is never cut, and changing `pool.prompts` later would make another tree, so an over-long
question must not come to light hours into recording. Tokenizers are enough for that, no weights.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError
from hierrouter.pool.prompts import GAP, Role, instruction_for, whole_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.config import AnswerKind, ModelSpec, Prompts
    from hierrouter.pool.backend import Backend


def require_fit(
    backend: Backend,
    specs: Sequence[ModelSpec],
    prompts: Prompts,
    hops: int,
    questions: Sequence[tuple[str, AnswerKind]],
) -> None:
    """Makes sure that no call of these models can be refused for its length.

    Args:
        backend: what runs them; only its tokenizer is used.
        specs: models of the pool with the same weights, and so with the same tokenizer.
        prompts: the pool's instructions.
        hops: L.
        questions: text and kind of answer of every query of the sample.

    Raises:
        HierRouterError: a question does not fit into `max_context_tokens` beside its longest
            instruction, even with all replies left out; or the longest message that may be made
            does not fit into a model's window with its template and the longest reply.
    """
    most = prompts.max_context_tokens

    def by_kind(pair: tuple[str, AnswerKind]) -> AnswerKind:
        return pair[1]

    worst, its_question, too_long = 0, "", 0
    for kind, group in groupby(sorted(questions, key=by_kind), key=by_kind):
        replies, instruction, answer_format = max(
            _calls(specs, prompts, hops, kind),
            key=lambda call: backend.count_tokens(whole_message("", *call)),
        )
        for question, _ in group:
            tokens = backend.count_tokens(
                whole_message(question, replies, instruction, answer_format)
            )
            too_long += tokens > most
            if tokens > worst:
                worst, its_question = tokens, question
    if too_long:
        raise HierRouterError(
            f"{too_long} of {len(questions)} questions are too long for "
            f"{', '.join(spec.name for spec in specs)}: with instruction they take up to {worst} "
            f"tokens, and pool.prompts.max_context_tokens is {most}; raise it to {worst}, or "
            f'leave their task out ("{" ".join(its_question.split())[:60]} …")'
        )
    # What earlier replies will add is not known yet, but no more than `most` in all.
    longest_reply = max(
        max(spec.limits.solve, spec.limits.analyze, *spec.limits.solve_by_task.values())
        for spec in specs
    )
    backend.require_window(worst if hops == 1 else most, longest_reply)


def _calls(
    specs: Sequence[ModelSpec], prompts: Prompts, hops: int, kind: AnswerKind
) -> list[tuple[list[tuple[Role, str]], str, str]]:
    """All that can stand beside a question: replies cut to nothing, instruction, answer format."""
    calls: list[tuple[list[tuple[Role, str]], str, str]] = []
    for hop in range(hops):
        replies: list[tuple[Role, str]] = [("analyze", GAP)] * hop
        for spec in specs:
            solve = instruction_for(prompts, spec, hop, "solve", any_before=hop > 0)
            calls.append((replies, solve, getattr(prompts.answer_formats, kind)))
            if hop < hops - 1:
                analyze = instruction_for(prompts, spec, hop, "analyze", any_before=hop > 0)
                calls.append((replies, analyze, ""))
    return calls
