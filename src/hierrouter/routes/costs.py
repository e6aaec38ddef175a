"""What a call costs."""


def call_cost(rate: float, tokens_in: float, tokens_out: float) -> float:
    """Dollars of one call: `delta = base_rate(m) * (tokens_in + tokens_out) / 1000`.

    The paper's section 3.1 has no division by 1,000, its Table 2 has; this is Table 2's unit.

    Args:
        rate: dollars per 1,000 tokens, read and written alike.
        tokens_in: tokens of the prompt.
        tokens_out: tokens of the reply.
    """
    return rate * (tokens_in + tokens_out) / 1000
