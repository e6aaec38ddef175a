"""What replies repeat of questions that are not passed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.config import DataConfig
from hierrouter.data.queries import Query
from hierrouter.data.sample import sample_queries
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.nodes import Node, NodeKey, read_nodes
from hierrouter.routes.quotes import CLOSE, OPEN, SHORTEST, Quotes
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import compact_tree, merge_trees

QUESTION = "A farmer has 12 cows and sells a third of them. How many cows does the farmer keep?"
REPLY = f"We are asked: {QUESTION}\nA farmer has 12 cows \\(and\\) sells a third of them, so 8."


def query(prompt: str, task: str = "math") -> Query:
    return Query(f"{task}/1", task, "train", 0, prompt, ("8",), "8", (), {})


def node(reply: str, task: str = "math") -> Node:
    end = (1, 2, "stop", 0.1, -0.5, -0.5, "int8", "openvino", "cpu", "key")
    return Node(f"{task}/1", ("A",), "solve", reply, *end)


def stored(quotes: Quotes, reply: str, task: str = "math") -> str:
    kept = quotes.leave_out([node(reply, task)])
    assert quotes.put_back(kept) == [node(reply, task)]
    return kept[0].reply


def shared(text: str, question: str = QUESTION) -> list[str]:
    """What of the question stands in a text."""
    pieces = (question[at : at + SHORTEST] for at in range(len(question) - SHORTEST + 1))
    return [piece for piece in pieces if piece in text]


def test_passages_of_a_withheld_question_are_places() -> None:
    kept = stored(Quotes([query(QUESTION)], {"math"}), REPLY)
    assert shared(REPLY)
    assert not shared(kept)
    first = len("A farmer has 12 cows ")
    assert kept == (
        f"We are asked: {OPEN}0+{len(QUESTION)}{CLOSE}\n{OPEN}0+{first}{CLOSE}"
        f"\\(and\\){OPEN}{first + 3}+{len(' sells a third of them')}{CLOSE}, so 8."
    )


def test_other_tasks_are_stored_as_they_are() -> None:
    assert stored(Quotes([query(QUESTION, "gsm8k")], {"math"}), REPLY, "gsm8k") == REPLY


def test_passages_are_put_back_where_nothing_is_withheld_any_more() -> None:
    kept = Quotes([query(QUESTION)], {"math"}).leave_out([node(REPLY)])
    assert Quotes([query(QUESTION)]).put_back(kept) == [node(REPLY)]


def test_what_cannot_be_put_back_is_passed_on_as_it_stands() -> None:
    kept = Quotes([query(QUESTION)], {"math"}).leave_out([node(REPLY)])
    blind = Quotes()
    assert blind.put_back(kept) == kept
    assert blind.leave_out(kept) == kept


PIECES = st.lists(st.sampled_from([*"abc ", OPEN, CLOSE, "3+2", "the quick brown fox jumps"]))


@given(PIECES.map("".join), PIECES.map("".join), st.sampled_from(["math", "gsm8k"]))
def test_whatever_stands_in_a_reply_comes_back(question: str, reply: str, withheld: str) -> None:
    kept = stored(Quotes([query(question)], {withheld}), reply)
    if withheld == "math":
        # Digits and our own characters belong to the places.
        between = kept.translate(dict.fromkeys(map(ord, "0123456789+")))
        assert not [piece for piece in shared(between, question) if OPEN not in piece]


def sample(world, withheld: list[str], name: str):
    config = DataConfig(source="scripted", tasks=["x", "y"], queries_per_task=4, withheld=withheld)
    return sample_queries(config, world.folder / name)


def quoting(folder) -> dict[NodeKey, str]:
    """Makes the reply of one node of each task repeat its question."""
    tree = RouteTree(folder)
    replies = {}
    for task in ("x", "y"):
        asked = next(each for each in tree.queries if each.task == task)
        place = NodeKey(asked.query_id, ("A", "D"), "solve")
        like = tree.nodes[place._replace(models=("A", "A"))]
        replies[place] = f"Now: {asked.prompt} So 8."
        tree.commit("more", [replace(like, models=place.models, reply=replies[place])])
    return replies


def in_files(folder) -> dict[NodeKey, str]:
    return {
        each.place: each.reply
        for path in (folder / "nodes").glob("*.parquet")
        for each in read_nodes(path)
    }


def test_the_files_of_a_tree_do_not_hold_what_is_withheld(world) -> None:
    tree = collect_routes(world.pool(), sample(world, ["x"], "queries"), world.tree)
    replies = quoting(tree)
    reopened = RouteTree(tree)
    kept = in_files(tree)
    for place, reply in replies.items():
        assert reopened.nodes[place].reply == reply
        assert (kept[place] == reply) == place.query_id.startswith("y/")


def test_a_tree_joined_withholds_what_it_should_and_nothing_is_lost(world) -> None:
    open_one = collect_routes(world.pool(), sample(world, [], "open"), world.folder / "open-tree")
    replies = quoting(open_one)
    closed = collect_routes(
        world.pool(), sample(world, ["x"], "closed"), world.folder / "closed-tree"
    )
    merge_trees([open_one], closed)
    merged = RouteTree(closed)
    assert {place: merged.nodes[place].reply for place in replies} == replies
    assert [in_files(closed)[place] == reply for place, reply in replies.items()] == [False, True]
    # From then on withheld in the other, too: what stands there already changes when it is joined.
    collect_routes(world.pool(), sample(world, ["x"], "closed"), open_one)
    assert in_files(open_one).items() >= replies.items()
    digest = RouteTree(open_one).digest()
    compact_tree(open_one)
    assert [in_files(open_one)[place] == reply for place, reply in replies.items()] == [False, True]
    assert RouteTree(open_one).digest() == digest


def test_joining_loses_no_passage_of_a_task_that_is_withheld_no_longer(world) -> None:
    tree = collect_routes(world.pool(), sample(world, ["x"], "closed"), world.tree)
    replies = quoting(tree)
    collect_routes(world.pool(), sample(world, [], "open"), tree)
    compact_tree(tree)
    assert {place: RouteTree(tree).nodes[place].reply for place in replies} == replies


def test_a_task_that_is_not_asked_cannot_be_withheld() -> None:
    with pytest.raises(ValueError, match=r"maths is not among the tasks \(did you mean math\?\)"):
        DataConfig(withheld=["maths"])
