"""Numbers (GSM8K): reading the one a reply ends on, and comparing exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from hierrouter.quality.statements import answer_statements, last_box, stated_line, tail

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})++(?!\d)|\d++)"
_PLAIN = rf"(?:{_DIGITS}(?:\.\d++)?|\.\d++)"
_CURRENCY = r"(?:\\?\$|[€£¥₹])?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-−–+](?=\s?[\d.$\\€£¥₹]))?\s?{_CURRENCY}\s?(?:"
    rf"\\[dt]?frac\s?\{{\s?(?P<top>-?\d+)\s?\}}\s?\{{\s?(?P<bottom>\d+)\s?\}}|"
    rf"(?P<number>{_PLAIN})"
    r"(?:(?:\s?(?:\*|×|x|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?(?P<power>[-−+]?\d+)\}?)"
    r"|[eE](?P<exponent>[-+]?\d+)(?!\w)"
    r"|(?P<fraction>\s?/\s?\d++(?![\d.]*\s?/))"
    r"|(?P<mixed>\s\d++/\d++)"
    r")?)"
)
_LEAD = re.compile(r"(?:[\s*_`~:=(\[{\"'$≈>]|\\[(\[,;!$]|\\(?:text|boxed|mathbf|textbf)\b)*+")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_REASON = re.compile(
    # Where an answer ends and its reason begins: "8 (since 1 day ...", "8; ...", "8, because ...".
    # A parenthesis after an operator or inside a product belongs to the calculation.
    r";|,?\s(?:because|since)\b|,\s(?:which|where|as)\b|\s\((?=\s?[A-Za-z]{2})"
    r"|(?<=[A-Za-z])(?<!times)(?<!plus)(?<!minus)(?<!\bof)(?<!\bby)\s\(|[.!?](?=\s+[A-Z]|\s*$)",
    re.IGNORECASE,
)
_OPERATOR = re.compile(
    r"(?<![A-Za-z])[-−–+*/×÷^](?![A-Za-z])|\\(?:times|cdot|div|frac|dfrac|tfrac)\b"
    r"|\b(?:x|times|plus|minus|divided|multiplied)\b|\bof\s[$\d]",
    re.IGNORECASE,
)
_LONGEST = 60


def parse_number(text: str) -> Fraction | None:
    """The first number in `text`, exactly; none where there is none or it is absurdly long."""
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            return value
    return None


def extract_number(reply: str) -> str | None:
    r"""The number a reply ends on, in plain form ("1234", "-0.5", "2/3").

    The last stated number counts (`\boxed{}`, "Answer: ", "the answer is", "####"); where none is
    stated, the last number of the reply.
    """
    text = tail(reply)
    stated: tuple[int, Fraction] | None = None
    for statement in reversed(list(answer_statements(text, hashes=True))):
        value = _stated(stated_line(text, statement.end))
        if value is not None:
            stated = statement.start, value
            break
    box = last_box(text)
    if box is not None and (stated is None or box[0] > stated[0]):
        boxed = _stated(box[1])
        if boxed is not None:
            stated = box[0], boxed
    if stated is not None:
        return plain(stated[1])
    last = _last(text)
    return None if last is None else plain(last)


def numbers_equal(answer: str, accepted: str) -> bool:
    """Whether two texts state exactly the same number."""
    left, right = parse_number(answer), parse_number(accepted)
    return left is not None and left == right


def plain(value: Fraction) -> str:
    """A fraction as people write it: an integer or finite decimal, else "p/q"."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _stated(line: str) -> Fraction | None:
    """The number an answer line means.

    Reasons in parentheses or behind "because" are left out. "3 * 6 = 18" means what stands after
    the last "=", but "36 eggs = 3 dozen" the 36; "18 dollars for 3 days" means the number it begins
    with; "he pays for 3 days, so 18 dollars" the last number of its sentence.
    """
    lead = _LEAD.match(line)
    start = lead.end() if lead else 0
    reason = _REASON.search(line, start)
    if reason is not None and _NUMBER.search(line, 0, reason.start()):
        line = line[: reason.start()]
    first = _NUMBER.match(line, start)
    if "=" in line[start:]:
        left = line[start : line.index("=", start)]
        after = parse_number(line[line.rindex("=") + 1 :])
        if after is not None and (first is None or not _is_lone(left)):
            return after
    # A currency sign or a minus belongs to the number, so look from before them.
    if first is not None:
        value = _value(first)
        if value is not None:
            return -value if _minus_before(line, first) else value
    end = _SENTENCE_END.search(line, start)
    return _last(line[: end.start() if end else len(line)])


def _is_lone(left: str) -> bool:
    """Whether what stands before an equals sign is one number with its unit, no calculation."""
    number = _NUMBER.match(left)
    return (
        number is not None
        and number["fraction"] is None
        and number["top"] is None
        and _NUMBER.search(left, number.end()) is None
        and _OPERATOR.search(left, number.end()) is None
    )


def _minus_before(line: str, match: re.Match[str]) -> bool:
    """Whether a minus stands before a currency sign that the lead has taken: "-$5"."""
    return match["sign"] is None and line[: match.start()].rstrip("$\\ ").endswith(("-", "−"))


def _last(text: str) -> Fraction | None:
    """The last number of a text."""
    value = None
    for match in _NUMBER.finditer(text):
        found = _value(match)
        value = value if found is None else found
    return value


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _LONGEST:
        return None
    try:
        if match["top"] is not None:
            value = Fraction(int(match["top"]), int(match["bottom"]))
        else:
            value = Fraction(re.sub(r"[,{}\\]", "", match["number"]))
            exponent = int((match["power"] or match["exponent"] or "0").replace("−", "-"))
            if abs(exponent) > _LONGEST:
                return None
            value *= Fraction(10) ** exponent
            if match["fraction"] is not None:
                value /= int(match["fraction"].strip(" /\t\n"))
            if match["mixed"] is not None:
                value += Fraction(match["mixed"].strip())
    except (ValueError, ZeroDivisionError):
        return None
    return -value if match["sign"] in ("-", "−", "–") else value
