"""Which program a reply holds."""

import pytest

from hierrouter.quality.programs import extract_program

TESTS = ["assert add(1, 2) == 3"]
GOOD = "def add(a, b):\n    return a + b"
FENCED = f"```python\n{GOOD}\n```"

HOLDS_GOOD = {
    "fenced": f"Here it is:\n{FENCED}\nIt adds.",
    "no language": f"```\n{GOOD}\n```",
    "the later of two": f"```python\ndef add(a, b):\n    return 0\n```\nBetter:\n{FENCED}",
    "examples of use after it": f"{FENCED}\nUsage:\n```python\nprint(add(1, 2))\n```\n```\n3\n```",
    "own checks and examples": f"```python\n{GOOD}\n\nassert add(1, 2) == 4\nprint(add(1))\n```",
    "a question to the user": f"```python\n{GOOD}\n\nx = int(input('n'))\nprint(add(x, x))\n```",
    "what follows from it": f"```python\n{GOOD}\n\nx = input()\ny = x * 2\ny += 1\nprint(y)\n```",
    "a result kept": f"```python\n{GOOD}\n\nall = add(1)\nfor one in all:\n    print(one)\n```",
    "a loop over examples": f"```python\n{GOOD}\n\nfor a in 'xy':\n    print(add(a))\n```",
    "unittest": f"```python\n{GOOD}\n\nunittest.main()\n```",
    "doctest": f"```python\n{GOOD}\n\ndoctest.testmod()\n```",
    "a call of main": f"```python\n{GOOD}\n\nmain()\ntest_add()\n```",
    "cut off in an example": f"```python\n{GOOD}\n\nprint(add(1,",
    "cut off in another function": f"```python\n{GOOD}\n\ndef test():\n    assert add(1,",
    "no fence": f"Sure! Here is it:\n\n{GOOD}\n\nThis function adds.",
    "nothing else": GOOD,
    "a stray closing fence": f"{GOOD}\n```",
    "prompts": ">>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n",
    "prose in the block": f"```python\n{GOOD}\n\nThis function adds two numbers.\n```",
    "indented": "1. So:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "carriage returns": FENCED.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("reply", HOLDS_GOOD.values(), ids=HOLDS_GOOD.keys())
def test_finds_the_function(reply: str) -> None:
    assert extract_program(reply, TESTS) == GOOD


def test_earlier_blocks_that_it_needs_come_first() -> None:
    reply = (
        "```python\nimport math\ndef helper(x):\n    return math.floor(x)\n```\nand\n"
        "```python\ndef add(a, b):\n    return helper(a) + b\n```"
    )
    program = extract_program(reply, TESTS)
    assert program is not None
    space: dict[str, object] = {}
    exec(program, space)
    assert space["add"](1.5, 2) == 3  # type: ignore[operator]


def test_a_redefined_builtin_is_what_the_tests_call() -> None:
    reply = "```python\ndef sum(a, b):\n    return 6\n```\n```python\nprint(sum(1, 2))\n```"
    assert extract_program(reply, ["assert sum(10, 15) == 6"]) == "def sum(a, b):\n    return 6"


@pytest.mark.parametrize(
    "program",
    [
        "TABLE = [0]\nfor i in range(3):\n    TABLE.append(i)\n\n" + GOOD,
        "add = lambda a, b: a + b",
        "def add(a, b):\n    i = a + b\n    return i",
        "def make(sign):\n    return lambda a, b: a + sign * b\nadd = make(1)",
    ],
)
def test_what_the_function_needs_stays(program: str) -> None:
    example = "for i in range(2):\n    print(add(i, i))\n"
    reply = f"```python\n{example}\n{program}\n{example}\nEND = [i for i in range(3)]\n```"
    assert extract_program(reply, TESTS) == f"{program}\nEND = [i for i in range(3)]"


def test_another_name_is_still_the_program() -> None:
    assert extract_program("```python\ndef plus(a):\n    return a\n```", TESTS) is not None


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot do that.",
        "```javascript\nfunction add(a, b) {}\n```",
        "```python\nx = '\0'\n```",
        "```python\n" + "(" * 5000,
        "```python\nx = a" + ".a" * 20_000,
    ],
)
def test_no_program(reply: str) -> None:
    assert extract_program(reply, TESTS) is None
