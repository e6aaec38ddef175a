"""Letters (multiple choice): which choice a reply decides for, or none.

Precision counts as much as recall. A reply that only repeats the choices, names several, or uses
"a" as an article has decided nothing, and a guess made for it would be luck in the score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hierrouter.quality.statements import last_box, tail

_MOST_ANCHORS = 200
_NOUN = r"(?:answer|option|choice|letter|response|solution)"
_IS = r"(?:is|was|would be|should be|must be|will be|:|=|->|→|-|–|—)"
_FILLER = (
    # What may stand between the anchor and the letter: marks, LaTeX, words such as "option".
    r"(?:[\s*_`~\"'“‘$<>:=(\[{]|[-–—](?=[\s*(\[])"
    r"|\\(?:text|textbf|mathbf|mathrm|boxed|fbox|bf|\(|\[|,|;|!)"
    r"|(?:the|correct|right|best|final|clearly|therefore|thus|indeed|most likely|is|"
    r"option|choice|letter|answer)\b){0,40}+"
)
_ANCHOR = re.compile(
    rf"(?<![\w'])(?:"
    # "Answer: ", "the answer to this question is", "the correct option would be"
    rf"answer\b[*_\s)]{{0,6}}+(?:(?:choice|option|letter)\b[*_\s]{{0,4}}+)?{_IS}"
    rf"|answer\b(?: (?!is\b)[\w,'’-]{{1,20}}){{1,10}}? (?:is|would be|should be|must be)\b:?"
    rf"|(?:correct|right|best|final|accurate|appropriate|likely|suitable|my)[ *_]{{1,4}}+{_NOUN}"
    rf"[*_\s)]{{0,6}}+{_IS}"
    rf"|(?:correct|right|best|final|accurate|appropriate|likely|suitable)[ *_]{{1,4}}+{_NOUN}"
    rf"(?: (?!is\b)[\w,'’-]{{1,20}}){{1,10}}? (?:is|would be|should be|must be)\b:?"
    rf"|<answer>"
    # Weaker ones, after which the letter has to end its clause: "I choose", "it is", "therefore,".
    rf"|(?P<weak>(?:choose|chose|select|selected|pick|go with|opt for)\b"
    rf"|it(?:['’]s| (?:is|must be|should be|would be))\b"
    rf"|(?:therefore|thus|hence|so)[,:]|correct[*_]{{0,4}}+:)"
    rf")",
    re.IGNORECASE,
)
_LABEL = re.compile(r"answer[*_\s)]*+:$", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|cannot|neither|instead of|rather than|without)\b|n['’]t\b)[^.,;:\n]{0,25}$",
    re.I,
)
_FILLED = re.compile(_FILLER, re.IGNORECASE)
_VERDICT = re.compile(
    # "Option C is correct", "(C) is the right answer"
    r"(?<![\w'’-])(?P<letter>[A-Z])[)\]*_.:]{0,4}+"
    # Between letter and verdict the choice's own words, but no other choice and no other clause.
    r"(?:[ ](?!(?:[(\[*_\"'$]{0,4}[A-Z]|is|and|so|but|while|[Tt]h(?:is|at)|[Ii]t)\b)"
    r"[^\s,.;]{1,30}){0,12}?[ ]"
    r"is[ *_]{1,4}+(?:clearly |therefore |indeed |thus )?(?:(?:the|my) (?:final )?answer\b"
    r"|(?:the )?(?:most |only |single )?(?:correct|right|best|accurate|appropriate|likely)"
    r"(?: (?:answer|option|choice|one|response)\b"
    r"|[ *_]{0,4}+(?:[.,;!\n]|$|because\b|since\b|as\b)))"
)
_CONDITION = re.compile(
    r"\b(?:if|whether|why|assume|suppose|let['’]s say|unless)[^.\n]{0,20}$", re.I
)
_APPROVED = re.compile(
    # Under a repeated choice: "This is correct because", "This is the right answer".
    r"\b(?:this|that|it)(?: (?:statement|option|choice|answer|one))?(?: is|['’]s)[ *_]{1,4}+"
    r"(?:the (?:most |only )?(?:correct|right|best)[*_]{0,4}+ (?:answer|option|choice|one)"
    r"|(?:the )?(?:correct|right)(?=[ *_]{0,4}+(?:[.,;!\n]|$|because\b|since\b|as\b)))",
    re.IGNORECASE,
)
_LISTED = re.compile(r"(?m)^[ \t>*_\-(\[]*+(?P<letter>[A-Z])[)\].:*_]{1,4}+(?!\w)")
_BARE = re.compile(
    r"[\s*_`\"'$(\[{>]*+(?:\\[(\[]|\\(?:text|textbf|boxed)\{)?(?:option|choice|answer)?[\s*_:(\[]*+"
    r"(?P<letter>[A-Z])[\s*_`\"'$)\]}.:\\]*+",
    re.IGNORECASE,
)
_SIDE = re.compile(
    # After the letter, another one that stands beside it: "A or B", "A, B", "A/B", "A-D".
    r"[)\]}*_\"'`.$\\\s]{0,6}+(?:,|/|\||&|-|–|\bor\b|\band\b|\bto\b)"
    r"(?:\s|or\b|and\b|option|choice|[(\[{*_\"'$\\])*+[A-Z](?![\w'’])"
)
_AFTER_ARTICLE = re.compile(
    # After "A" or "I": nothing that makes it an article or a pronoun.
    r"[*_\"'”’$]*+(?:$|[\n.):,;\]}(\[<>\\–—/-]"
    r"|[ \t]++(?:$|[\n(\[–—-]|(?:is|because|as|since|which|with|and|due)\b))"
)
_ENDS_CLAUSE = re.compile(
    r"[*_\"'”’$)\]}]*+(?:$|[\n.,;:!<]|[ \t]++(?:$|\n|because\b|since\b"
    r"|as (?:the|my) (?:\w{1,12} )?(?:answer|choice|option)\b))"
)
_NEXT_LINE = re.compile(r"[^\n]{0,400}\n\s{0,8}+[*_\-(\[]{0,3}+(?P<letter>[A-Z])[)\].:*_]{1,3}+\s")


@dataclass(frozen=True, slots=True)
class _Decision:
    start: int
    letter: str


def extract_letter(reply: str, choices: int) -> str | None:
    r"""The choice a reply decides for, as a capital letter; none where it never decides.

    The last decision counts: "Answer: B", "the correct option is (B)", `\boxed{B}`, "B is
    correct". Where none is stated, a reply that is, begins or ends with one letter as one names
    a choice ("B", "B. photosynthesis") has decided too, unless it lists several.

    Args:
        reply: What a model wrote.
        choices: How many choices there are; A is the first.
    """
    text = tail(reply)
    allowed = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices])
    decisions = [*_anchored(text, allowed), *_verdicts(text, allowed), *_boxed(text, allowed)]
    decisions.sort(key=lambda decision: decision.start)
    if decisions:
        letters = [decision.letter for decision in decisions]
        return None if _enumerates(letters, allowed) else letters[-1]
    return _approved(text, allowed) or _unanchored(text, allowed)


def _anchored(text: str, allowed: frozenset[str]) -> list[_Decision]:
    """Decisions behind "Answer:" and its like."""
    found = []
    listed = False
    for anchor in list(_ANCHOR.finditer(text))[-_MOST_ANCHORS:]:
        filled = _FILLED.match(text, anchor.end())
        at = filled.end() if filled else anchor.end()
        # "choose A" needs a space or mark between the words and the letter.
        if at == anchor.end() and text[at - 1 : at].isalpha():
            continue
        # After "Answer:" any letter is a choice; elsewhere "A" may be an article.
        label = _LABEL.search(text, anchor.start(), anchor.end()) is not None
        letter = _letter_at(text, at, allowed, articles=not label)
        if letter is None:
            continue
        if anchor["weak"] is not None and (
            not _ENDS_CLAUSE.match(text, at + 1) or _doubted(text, anchor.start())
        ):
            continue
        if _begins_list(text, at, letter, cut_off=listed):
            listed = True
        else:
            found.append(_Decision(at, letter))
    return found


def _verdicts(text: str, allowed: frozenset[str]) -> list[_Decision]:
    """Decisions of the form "C is correct", unless they are supposed or asked."""
    return [
        _Decision(match.start(), match["letter"])
        for match in _VERDICT.finditer(text)
        if match["letter"] in allowed
        and not _doubted(text, match.start())
        and not _SIDE.match(text, match.end("letter"))
        and (match["letter"] != "A" or _AFTER_ARTICLE.match(text, match.end("letter")))
        and " not " not in match[0]
    ]


def _doubted(text: str, start: int) -> bool:
    """Whether what comes before a place denies or only supposes what is said there."""
    before = text[max(0, start - 40) : start]
    return bool(_CONDITION.search(before) or _NEGATED.search(before))


def _approved(text: str, allowed: frozenset[str]) -> str | None:
    """The only choice of a repeated list that its own remark calls correct."""
    items = [match for match in _LISTED.finditer(text) if match["letter"] in allowed]
    ends = [*(item.start() for item in items), len(text)][1:]
    approved = {
        item["letter"]
        for item, end in zip(items, ends, strict=True)
        for remark in _APPROVED.finditer(text, item.end(), end)
        if not _doubted(text, remark.start())
    }
    return approved.pop() if len(approved) == 1 else None


def _boxed(text: str, allowed: frozenset[str]) -> list[_Decision]:
    box = last_box(text)
    if box is None:
        return []
    filled = _FILLED.match(box[1])
    letter = _letter_at(box[1], filled.end() if filled else 0, allowed)
    return [] if letter is None else [_Decision(box[0], letter)]


def _letter_at(text: str, at: int, allowed: frozenset[str], *, articles: bool = True) -> str | None:
    """The letter at a place, if it is one choice and no word, article or list of choices.

    Args:
        text: The reply.
        at: Where the letter stands.
        allowed: The choices.
        articles: Whether "A" may be an article there ("I" may always be a pronoun).
    """
    written = text[at : at + 1]
    letter, after = written.upper(), at + 1
    if letter not in allowed or not written.isascii():
        return None
    following = text[after : after + 1]
    joined = following in ("'", "’", "_", "+") and text[after + 1 : after + 2].isalnum()
    if joined or following.isalnum():
        return None
    if following in ("-", "–") and text[after + 1 : after + 2].islower():
        return None
    if written.islower() and not re.match(
        r"[*_]{0,4}(?:[).:\]}]|\s*$|\s*\n)", text[after : after + 20]
    ):
        return None
    if letter in ("AI" if articles else "I") and not _AFTER_ARTICLE.match(text, after, after + 200):
        return None
    if _SIDE.match(text, after):
        return None
    return letter


def _begins_list(text: str, at: int, letter: str, *, cut_off: bool) -> bool:
    """Whether the choice at a place is the first of a repeated list, followed by the next one.

    Args:
        text: The reply.
        at: Where the letter stands.
        letter: The letter.
        cut_off: Whether an earlier list makes a last line "A. ..." the start of another.
    """
    if text[at + 1 : at + 2] not in (")", ".", ":", "]"):
        return False
    following = _NEXT_LINE.match(text, at + 1)
    if following is None:
        return cut_off and letter == "A" and "\n" not in text[at:].rstrip()
    return ord(following["letter"]) == ord(letter) + 1


def _enumerates(letters: list[str], allowed: frozenset[str]) -> bool:
    """Whether the last decisions run through the choices from A, three or more: no decision."""
    run = 1
    while run < len(letters) and ord(letters[-run]) - ord(letters[-run - 1]) == 1:
        run += 1
    return run >= 3 and letters[-run] == min(allowed)


def _unanchored(text: str, allowed: frozenset[str]) -> str | None:
    """The letter of a reply that is just a choice, or begins or ends with just one."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    listed = [match["letter"] for match in _LISTED.finditer(text) if match["letter"] in allowed]
    for line in (lines[-1], lines[0]):
        bare = _BARE.fullmatch(line[:200]) if len(line) <= 200 else None
        if bare is not None and bare["letter"].upper() in allowed:
            letter = bare["letter"]
            # A lone "a" or a line "I" is no choice; a list's last line "D." may be cut off.
            if letter.isupper() and not (len(set(listed)) > 1 and listed[-2:-1] < [letter]):
                return letter
    first = _LISTED.match(lines[0])
    if first is not None and set(listed) == {first["letter"]}:
        return first["letter"]
    last = _LISTED.match(lines[-1])
    if last is not None and len(listed) > 2 and last["letter"] in listed[:-1]:
        # After the whole list, one choice again: "A. .. B. .. C. .. D. ..", then "B. ..".
        return last["letter"] if listed[-2] > last["letter"] != min(allowed) else None
    return None
