"""The six benchmarks: how a row of a source becomes a question with its reference answer.

Rows are the hub's (field names as on the Hugging Face hub); `mirrored.py` brings a mirror's rows
into that shape first, so that both sources give the same question.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, HierRouterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hierrouter.config import AnswerKind

Row = dict[str, Any]

MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


@dataclass(frozen=True, slots=True)
class Question:
    """A query before it is given a split and a fold; the fields are those of `Query`."""

    query_id: str
    task: str
    prompt: str
    reference: tuple[str, ...]
    reference_text: str
    tests: tuple[str, ...]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark.

    Attributes:
        name: the task's name.
        kind: the kind of its answers.
        repo: the data set on the Hugging Face hub.
        configs: the data set's configurations to read; rows are numbered within each.
        convert: (config, number of the row in it, row) to a question.
        balanced_by: a metadata key; the sample has equally many of each of its values.
    """

    name: str
    kind: AnswerKind
    repo: str
    configs: tuple[str, ...]
    convert: Callable[[str, int, Row], Question]
    balanced_by: str = ""


def tidy(value: Any) -> str:
    """A source's text with line ends as LF and without space around it."""
    return str(value).replace("\r\n", "\n").replace("\r", "\n").strip()


def choices_prompt(question: str, choices: Sequence[str]) -> str:
    """The question, then one line a choice: "A. first", "B. second"."""
    lines = [f"{letter}. {tidy(c)}" for letter, c in zip(string.ascii_uppercase, choices)]  # noqa: B905
    return "\n".join([tidy(question), *lines])


def _chosen(
    query_id: str,
    task: str,
    question: str,
    choices: Sequence[str],
    right: int,
    metadata: Mapping[str, str],
) -> Question:
    letter = string.ascii_uppercase[right]
    return Question(
        query_id=query_id,
        task=task,
        prompt=choices_prompt(question, choices),
        reference=(letter,),
        reference_text=letter,
        tests=(),
        metadata={"kind": "letter", "choices": str(len(choices)), **metadata},
    )


def _gsm8k(_config: str, number: int, row: Row) -> Question:
    # The hub's test split and the mirror hold the same 1,319 rows in the same order.
    worked, _, final = tidy(row["answer"]).rpartition("####")
    return Question(
        query_id=f"gsm8k/{number}",
        task="gsm8k",
        prompt=tidy(row["question"]),
        reference=(final.strip().replace(",", ""),),
        reference_text=re.sub(r"<<[^<>]*>>", "", worked).strip(),
        tests=(),
        metadata={"kind": "number"},
    )


def last_boxed(solution: str) -> str | None:
    r"""The content of the last `\boxed{…}`, `\fbox{…}` or `\boxed x` in a solution, or None."""
    found = list(re.finditer(r"\\(?:boxed|fbox)(?![A-Za-z])", solution))
    if not found:
        return None
    rest = solution[found[-1].end() :].lstrip()
    if not rest.startswith("{"):
        bare = re.match(r"[^\s$]+", rest)
        return bare.group().rstrip(".,") if bare else None
    depth = 0
    for position, character in enumerate(rest):
        if rest[position - 1 : position] == "\\":
            continue  # \{ and \} are printed braces
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:position].strip()
    return None


def _math(config: str, number: int, row: Row) -> Question:
    # Both sources hold the 5,000 test rows of each subject in the same order.
    solution = tidy(row["solution"])
    answer = last_boxed(solution)
    if answer is None:
        raise HierRouterError(f"math/{config}/{number}: the solution has no boxed answer")
    return Question(
        query_id=f"math/{config}/{number}",
        task="math",
        prompt=tidy(row["problem"]),
        reference=(answer,),
        reference_text=solution,
        tests=(),
        metadata={"kind": "math", "subject": config, "level": tidy(row["level"])},
    )


def _mbpp(_config: str, _number: int, row: Row) -> Question:
    code = tidy(row["code"])
    asserts = [tidy(test) for test in row["test_list"]]
    setup = tidy(row.get("test_setup_code") or "")
    return Question(
        query_id=f"mbpp/{row['task_id']}",
        task="mbpp",
        prompt=f"{tidy(row['text'])}\nYour code should satisfy: {asserts[0]}",
        reference=(code,),
        reference_text=code,
        tests=((setup,) if setup else ()) + tuple(asserts),
        metadata={"kind": "unit_tests"},
    )


def _arc(task: str) -> Callable[[str, int, Row], Question]:
    def convert(_config: str, _number: int, row: Row) -> Question:
        # Labels are A.. or 1..; the letter is the choice's place, whatever its label.
        choices, labels = list(row["choices"]["text"]), list(row["choices"]["label"])
        right = labels.index(row["answerKey"])
        return _chosen(f"{task}/{row['id']}", task, row["question"], choices, right, {})

    return convert


def _mmlu(_config: str, number: int, row: Row) -> Question:
    subject = tidy(row["subject"])
    return _chosen(
        f"mmlu/{subject}/{number}",
        "mmlu",
        row["question"],
        list(row["choices"]),
        int(row["answer"]),
        {"subject": subject},
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("gsm8k", "number", "openai/gsm8k", ("main",), _gsm8k),
        Task("math", "math", "EleutherAI/hendrycks_math", MATH_SUBJECTS, _math),
        Task("mbpp", "unit_tests", "google-research-datasets/mbpp", ("full",), _mbpp),
        Task("arc_easy", "letter", "allenai/ai2_arc", ("ARC-Easy",), _arc("arc_easy")),
        Task(
            *("arc_challenge", "letter", "allenai/ai2_arc", ("ARC-Challenge",)),
            _arc("arc_challenge"),
        ),
        Task("mmlu", "letter", "cais/mmlu", ("all",), _mmlu, balanced_by="subject"),
    )
}


def known_tasks(names: Sequence[str], own: Collection[str] = ()) -> list[Task]:
    """The benchmarks of these names.

    Args:
        names: the tasks' names.
        own: those of one's own, which are passed over.

    Raises:
        ConfigError: a name is none of ours; lists those that are.
    """
    unknown = [name for name in names if name not in TASKS and name not in own]
    if unknown:
        raise ConfigError(
            f"data.tasks: unknown task {', '.join(unknown)}; known are "
            f"{', '.join([*TASKS, *own])} (any name will do with source: scripted)"
        )
    return [TASKS[name] for name in names if name not in own]


def questions_of(task: Task, config: str, rows: Sequence[Row]) -> list[Question]:
    """Turns the rows of one configuration of a task, in the source's order, into questions."""
    seen: dict[str, int] = {}
    questions = []
    for row in rows:
        # cais/mmlu puts all subjects in one configuration; a row's number is within its subject.
        part = str(row.get("subject", ""))
        number = seen.get(part, 0)
        seen[part] = number + 1
        questions.append(task.convert(config, number, row))
    return questions
