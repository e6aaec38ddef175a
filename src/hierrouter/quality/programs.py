"""Finds the program in a reply: which of its code blocks, or which lines, the tests are run on."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LONGEST = 50_000
_MOST_BLOCKS = 50
_REPAIRS = 12
_FENCE = re.compile(r"[ \t>]{0,12}+(?P<mark>```+|~~~+)[ \t]*+(?P<language>[\w+#.-]*+)")
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)")
_CODE_START = re.compile(r"(?:def|class|import|from|async def)\s+\w|@\w")
_CODE_LINE = re.compile(
    r"\s|#|@\w|[)\]}]|(?:def|class|import|from|async|if|elif|else|for|while|with|try|except|finally"
    r"|return|print|assert|raise|pass|del|global)\b(?=.*[:(=]|\s*\w+$)|(?:import|from)\s+\w"
    r"|[\w.\[\]'\", ]{1,80}\s*[-+*/|&]?=[^=]|[\w.]{1,80}\("
)
_BUILTINS = frozenset(dir(builtins))
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def extract_program(reply: str, tests: Sequence[str]) -> str | None:
    """The program of a reply: the last code block that defines what the tests call.

    Earlier blocks that define what it uses are put before it. Where no fenced block defines it, the
    reply's own lines are searched for code. A block cut off in the middle is used up to its last
    complete statement. The reply's own asserts and examples of use are left out: it is judged by
    the task's tests.

    Args:
        reply: What a model wrote.
        tests: Python source of the tests.

    Returns:
        Python source that parses; none where the reply holds none.
    """
    text = reply[:_LONGEST].replace("\r\n", "\n")
    wanted = _called(tests)
    blocks = [tree for block in _blocks(text) if (tree := _repaired(block)) is not None]
    blocks = [tree for tree in blocks if tree.body]
    chosen = _choose(blocks, wanted)
    if chosen is None or (wanted and not wanted & _defined(blocks[chosen])):
        loose = _repaired(_loose_code(text))
        if loose is not None and (wanted & _defined(loose) or chosen is None) and loose.body:
            return _source(loose, wanted)
    if chosen is None:
        return None
    return _source(_completed(blocks, chosen), wanted)


def _called(tests: Sequence[str]) -> frozenset[str]:
    """The names that the tests use and do not define; a built-in name may be redefined."""
    used: set[str] = set()
    bound: set[str] = set()
    for test in tests:
        tree = _parse(test)
        if tree is not None:
            used |= _names(tree, ast.Load)
            bound |= _names(tree, ast.Store) | _defined(tree)
    return frozenset(used - bound)


def _blocks(text: str) -> list[str]:
    """The fenced blocks in Python or in no stated language; the last fence may be unclosed."""
    blocks: list[str] = []
    current: list[str] | None = None
    mark, python = "", False
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if current is None and fence is not None:
            current, mark = [], fence["mark"]
            python = fence["language"].lower() in ("", "python", "python3", "py", "pycon")
            rest = line[fence.end() :].strip()
            if rest and not rest.startswith("{"):
                current.append(rest)
        elif current is not None and line.lstrip(" \t>").startswith(mark):
            blocks += ["\n".join(current)] if python else []
            current = None
        elif current is not None:
            current.append(line)
    if current and python:
        blocks.append("\n".join(current))
    return blocks[-_MOST_BLOCKS:]


def _loose_code(text: str) -> str:
    """Lines that look like code, from the first definition or import on, prose left out."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            inside = False
        elif _CODE_START.match(line) or (line.startswith((">>> ", "... "))):
            inside = True
            lines.append(line)
        elif inside and (not line.strip() or _CODE_LINE.match(line)):
            lines.append(line)
        else:
            inside = False
    return "\n".join(lines)


def _repaired(block: str) -> ast.Module | None:
    """The syntax tree of a block: without prompts, dedented, cut where it stops making sense."""
    lines = block.split("\n")
    if any(line.lstrip().startswith(">>>") for line in lines):
        prompted = [line for line in lines if _PROMPT.match(line)]
        lines = [_PROMPT.sub("", line, count=1) for line in prompted]
    filled = [line for line in lines if line.strip()]
    if not filled:
        return None
    indent = min(len(line) - len(line.lstrip()) for line in filled)
    lines = [line[indent:] for line in lines]
    for _ in range(_REPAIRS):
        source = "\n".join(lines)
        failure = _failure(source)
        if isinstance(failure, ast.Module):
            return failure
        # Everything from the top-level statement on that does not parse is left out.
        cut = min(failure - 1, len(lines) - 1)
        while cut > 0 and (not lines[cut].strip() or lines[cut][0] in " \t)]}#"):
            cut -= 1
        kept = _cut_inside(lines, cut, failure - 1)
        lines = lines[:cut] if kept is None else kept
        if not lines:
            return None
    return None


def _cut_inside(lines: list[str], start: int, end: int) -> list[str] | None:
    """A definition from `start`, cut off at `end`, without its last, unfinished lines."""
    for last in range(min(end, len(lines)), max(start + 1, end - 3), -1):
        shorter = lines[:last]
        if isinstance(_failure("\n".join(shorter)), ast.Module):
            return shorter
    return None


def _failure(source: str) -> ast.Module | int:
    """The syntax tree, or the number of the line at which parsing failed (0: hopeless)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return 0


def _parse(source: str) -> ast.Module | None:
    tree = _failure(source)
    return tree if isinstance(tree, ast.Module) else None


def _choose(blocks: Sequence[ast.Module], wanted: frozenset[str]) -> int | None:
    """The last block that defines most of what is wanted; the last one where none defines any."""
    best, most = None, -1
    for index, tree in enumerate(blocks):
        defines = len(wanted & _defined(tree))
        if defines >= most:
            best, most = index, defines
    return best


def _completed(blocks: Sequence[ast.Module], chosen: int) -> ast.Module:
    """The chosen block, after the earlier ones that define names it uses and lacks."""
    parts = [blocks[chosen]]
    have = _defined(blocks[chosen]) | _names(blocks[chosen], ast.Store)
    lacks = _names(blocks[chosen], ast.Load) - have - _BUILTINS - _arguments(blocks[chosen])
    for tree in reversed(blocks[:chosen]):
        given = _defined(tree)
        if lacks & given:
            parts.insert(0, tree)
            lacks = (lacks - given) | (_names(tree, ast.Load) - given - _BUILTINS)
    return ast.Module([statement for part in parts for statement in part.body], type_ignores=[])


def _source(tree: ast.Module, wanted: frozenset[str]) -> str | None:
    """Source of the tree without its own asserts and examples of use."""
    body = _without_examples(tree.body, wanted)
    try:
        return ast.unparse(ast.Module(body, type_ignores=[])) or None
    except (RecursionError, ValueError, MemoryError):
        return None


def _without_examples(body: Sequence[ast.stmt], wanted: frozenset[str]) -> list[ast.stmt]:
    """The top-level statements, less those that only show or check the program.

    What goes on from the result of one that is left out (`result = add(1, 2)`, then a loop over
    `result`) is left out too. Definitions always stay.
    """
    kept: list[ast.stmt] = []
    lost: frozenset[str] = frozenset()
    for statement in body:
        stored = _names(statement, ast.Store)
        defines = bool(wanted & stored) or any(
            isinstance(n, _DEFINITIONS) for n in ast.walk(statement)
        )
        read = _names(statement, ast.Load) - _loop_names(statement)
        if isinstance(statement, ast.AugAssign):
            read |= stored
        follows = bool(lost & read)
        if not defines and (follows or _is_example(statement, wanted)):
            lost |= stored
        else:
            kept.append(statement)
            lost -= stored
    return kept


def _is_example(statement: ast.stmt, wanted: frozenset[str]) -> bool:
    """Whether a top-level statement asserts, prints, asks a user, runs tests or calls `wanted`."""
    match statement:
        case ast.Assert() | ast.Expr(ast.Constant()):
            return True
        case ast.Expr(ast.Call(func)):
            return _is_own_run(func) or bool(
                _called_names(statement) & (wanted | {"print", "input"})
            )
        case (
            ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For() | ast.While() | ast.With()
        ):
            return bool(_called_names(statement) & (wanted | {"input"}))
    return False


def _is_own_run(function: ast.expr) -> bool:
    """Whether this is `unittest.main`, `doctest.testmod`, or by its name a program's own run."""
    match function:
        case ast.Attribute(ast.Name(module), name):
            return (module, name) in (("unittest", "main"), ("doctest", "testmod"))
        case ast.Name(name):
            return name in ("main", "testmod") or name.startswith("test_")
    return False


def _loop_names(tree: ast.AST) -> frozenset[str]:
    """The variables of loops and comprehensions, which are set before they are read."""
    loops = (n for n in ast.walk(tree) if isinstance(n, ast.For | ast.AsyncFor | ast.comprehension))
    return frozenset().union(*(_names(loop.target, ast.Store) for loop in loops))


def _called_names(tree: ast.AST) -> frozenset[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return frozenset(function.id for function in calls if isinstance(function, ast.Name))


def _defined(tree: ast.Module) -> frozenset[str]:
    """What a module's top level defines: functions, classes, imports, assigned names."""
    names: set[str] = set()
    for statement in tree.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(statement.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(each.asname or each.name).split(".")[0] for each in statement.names}
            case ast.Assign() | ast.AnnAssign():
                names |= _names(statement, ast.Store)
    return frozenset(names)


def _names(tree: ast.AST, context: type[ast.expr_context]) -> frozenset[str]:
    nodes: Iterable[ast.AST] = ast.walk(tree)
    return frozenset(
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    )


def _arguments(tree: ast.AST) -> frozenset[str]:
    return frozenset(node.arg for node in ast.walk(tree) if isinstance(node, ast.arg))
