"""Number formats by what the processor has, and batches by what fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.pool.devices import choose_dtype, plan_batches


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu sse2 avx2 avx512f", "float32"),
        ("flags : fpu avx512f avx512_bf16", "bfloat16"),
        ("flags : fpu amx_bf16 amx_tile", "bfloat16"),
        ("Features : fp asimd bf16", "bfloat16"),
    ],
)
def test_bfloat16_where_the_processor_multiplies_it(tmp_path, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(flags)
    assert choose_dtype("auto", "cpu", cpuinfo) == expected
    assert choose_dtype("float16", "cpu", cpuinfo) == "float16"


def test_float32_where_abilities_are_unknown(tmp_path):
    assert choose_dtype("auto", "cpu", tmp_path / "none") == "float32"


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 300)), max_size=40),
    st.integers(1, 4000),
)
def test_batches_hold_every_prompt_once_and_keep_the_bound(rows, bound):
    lengths, limits = [length for length, _ in rows], [limit for _, limit in rows]
    batches = plan_batches(lengths, limits, bound)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        widest = max(lengths[i] for i in batch) + max(limits[i] for i in batch)
        assert len(batch) == 1 or len(batch) * widest <= bound


def test_the_largest_comes_first_and_like_stands_with_like():
    assert plan_batches([10, 90, 20, 80], [50, 50, 200, 200], 1000) == [[3, 2, 1], [0]]
    assert plan_batches([10, 90, 20, 80], [50, 50, 200, 200], 600) == [[3, 2], [1, 0]]
    assert plan_batches([10, 90, 20, 80], [50, 50, 200, 200], 500) == [[3], [2], [1, 0]]
