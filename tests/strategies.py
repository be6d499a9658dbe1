"""Hypothesis strategies for valid architectures, small enough to count in a millisecond."""

from __future__ import annotations

from hypothesis import strategies as st

from effnet.arch import Arch, Stage
from effnet.arch.spec import ACTIVATIONS, BLOCK_KINDS

ratios = st.sampled_from([0.0, 0.01, 0.0625, 0.25, 0.5, 1.0])


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Draw a stage with any block, kernel, stride, expansion and squeeze ratio."""
    expand, layers = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    squeeze = draw(ratios)
    listed = st.just(()) | st.tuples(*[st.integers(1, 200)] * layers)
    return Stage(
        draw(st.sampled_from(BLOCK_KINDS)),
        expand,
        kernel=draw(st.sampled_from([1, 3, 5, 7])),
        stride=draw(st.integers(1, 2)),
        channels=draw(st.integers(1, 96)),
        layers=layers,
        squeeze=squeeze,
        residual=draw(st.booleans()),
        expand_from=draw(st.sampled_from([0, 1, 16, 24])),
        expanded=draw(listed),
        squeezed=draw(listed) if squeeze else (),
    )


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    """Draw an architecture of one to six stages with any scaling."""
    return Arch(
        draw(st.text(min_size=1, max_size=8)),
        tuple(draw(st.lists(stages(), min_size=1, max_size=6))),
        width=draw(st.floats(0.1, 3.0)),
        depth=draw(st.floats(0.1, 3.0)),
        resolution=draw(st.integers(1, 320)),
        dropout=draw(st.floats(0, 0.9)),
        drop_path=draw(st.floats(0, 0.9)),
        stem=draw(st.integers(1, 64)),
        head=draw(st.integers(1, 256)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        stem_stride=draw(st.integers(1, 2)),
        scale_ends=draw(st.booleans()),
        round_floor=draw(st.sampled_from([0.0, 0.9, 1.0])),
        divisor=draw(st.sampled_from([1, 2, 8])),
    )
