"""Which choice a reply decides for: formats that real models use, and traps."""

import pytest

from hierrouter.quality.letters import extract_letter

CASES = [
    ("Answer: B", "B"),
    ("**Answer:** (B)", "B"),
    ("The answer is B", "B"),
    ("\\boxed{B}", "B"),
    ("so $\\boxed{\\text{B}}$", "B"),
    ("B. photosynthesis", "B"),
    ("B", "B"),
    ("answer: b)", "B"),
    ("Option C", "C"),
    ("The correct answer is option D: the sun", "D"),
    ("Answer: B\nAnswer: C", "C"),
    ('End with a line "Answer: X", where X is the letter', None),
    ("Answer: X", None),
    ("A. water\nB. light\nC. soil\nD. air", None),
    ("A. water\nB. light\nC. soil\nD. air\n\nB. light", "B"),
    ("A. water\nB. light\nC. soil\nD. air\n\nAnswer: C", "C"),
    ("A plant makes food", None),
    ("I think plants make food", None),
    ("Answer: A plant makes food", None),
    ("The answer is a plant", None),
    ("Answer: A", "A"),
    ("Answer: A.", "A"),
    ("Answer: A) water", "A"),
    ("The answer is A because it", "A"),
    ("Photosynthesis", None),
    ("The answer is", None),
    ("", None),
    ("Answer: A, B, C, D", None),
    ("Answer: A or B", None),
    ("Answer: [A/B/C/D]", None),
    ("The correct option is C.", "C"),
    ("Option C is correct.", "C"),
    ("(C) is the right answer", "C"),
    ("If B is correct, then we", None),
    ("Option B is incorrect.", None),
    ("Option B is not correct.", None),
    ("I would choose option C", "C"),
    ("Answer:\nA. water\nB. light\nC. soil\nD. air", None),
    ("Answer: A. water\nB. light\nC. soil\nD. air", None),
    ("The correct answer is:\n\nA) water", "A"),
    ("The correct answer is:\n\n**D. air**", "D"),
    ("Answer: Because water", None),
    ("The answer is not B", None),
    ("Answer:\n\nB", "B"),
    ("Answer: A\nAnswer: B\nAnswer: C\nAnswer: D", None),
    ("B\n\nExplanation: It is light", "B"),
    ("Let me think.\n\nC", "C"),
    ("Therefore, the answer is **D**.", "D"),
    ("The best choice is: C", "C"),
    ("Answer: E", "E"),
    ("Answer: $B$", "B"),
    ("Answer: \\(B\\)", "B"),
    ("The correct answer to the question is B.", "B"),
    ("the answer is b.", "B"),
    ("Answer: both A and B", None),
    ("Final Answer: The final answer is $\\boxed{C}$", "C"),
    ("The answer is Vitamin C", None),
    ("Answer is: D", "D"),
    ("Answer - D", "D"),
    ("A", "A"),
    ("C is the correct answer because ...", "C"),
    ("A is correct", "A"),
    ("**C**", "C"),
    ("(D)", "D"),
    ("Answer: D. air\nA is wrong", "D"),
    ("Answer: A-level", None),
    ("Choice B", "B"),
    ("The answer is Dogs", None),
    ("A. water\nB. li", None),
    ("Answer: C's", None),
    ("The answer is:\n\nD", "D"),
    ("The answer is A) water, not B) light.", "A"),
    ("My answer is B", "B"),
    ("I choose a plant", None),
    ("The correct answer is C) soil. \n\nExplanation: A. water", "C"),
    ("The correct answer is B\n\nA) no\nB) yes", "B"),
    ("The correct letter is C", "C"),
    ("Answer: <B>", "B"),
    ("Answer: The correct option is (A)", "A"),
    ("A: water is", "A"),
    ("The most likely answer is D", "D"),
    ("Answer:B", "B"),
    ("ANSWER: C", "C"),
    ("Correct answer: C", "C"),
    ("Answer (B)", "B"),
    ("The answer choice that fits is C.", "C"),
    ("I go with B.", "B"),
    ("The letter of the right choice is B.", "B"),
    ('Answer: "D"', "D"),
    (
        "The correct answer is:\nA. water\nB. light\nC. soil\n\nThe correct answer is:\nA. wat",
        None,
    ),
    ("The answer is: X\n\nSo, the answer is X.", None),
    ("Answer: <the letter>", None),
    ("A. water\nB. light\nC. soil\nD. air\n\nThe correct answer is:\nD. air", "D"),
    ('The first letter of the correct choice is "A" which stands for it.', "A"),
    ("A. water\nA. light\nB. soil", None),
    ("The answer to this question is b) light", "B"),
    ("Answer: A, because it is wet", "A"),
    ("I am sure that I know the answer.", None),
    ("The answer is I think unclear", None),
]


@pytest.mark.parametrize(("reply", "letter"), CASES)
def test_letter(reply: str, letter: str | None) -> None:
    assert extract_letter(reply, 5) == letter


def test_letters_beyond_the_choices_do_not_count() -> None:
    assert extract_letter("Answer: E", 4) is None
    assert extract_letter("Answer: E", 5) == "E"
    assert extract_letter("Answer: B, not E", 4) == "B"


def test_the_final_statement_wins() -> None:
    assert extract_letter("The answer is A. Wait.\n\\boxed{C}\nAnswer: B", 4) == "B"
    assert extract_letter("Answer: B\nAnswer: X", 4) == "B"
