"""The kernel of a step of generation against sums written out, row by row."""

from __future__ import annotations

import pytest
import torch

from norma.nn import kernels


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, begin: int, end: int, scale: float) -> torch.Tensor:
    """One row: q (H, D), k and v (G, S, D)."""
    out = []
    for h in range(len(q)):
        g = h // (len(q) // len(k))
        scores = [float((q[h].double() * k[g, s].double()).sum()) * scale for s in range(begin, end)]
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        out.append(sum(w * v[g, s].double() for w, s in zip(weights, range(begin, end), strict=True)))
    return torch.stack(out)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "groups", "size"), [(4, 4, 32), (6, 2, 64), (3, 1, 96)])
@pytest.mark.parametrize("shared", [False, True])
def test_each_row_sees_its_own_stretch(dtype: torch.dtype, heads: int, groups: int, size: int, shared: bool) -> None:
    if not kernels.ready(dtype):
        pytest.skip("no kernels here")
    random = torch.Generator().manual_seed(0)
    rows, slots = 5, 40
    q = torch.randn(rows, heads, 1, size, generator=random).to(dtype)
    k, v = (torch.randn(2, 3 if shared else rows, groups, slots + 9, size, generator=random).to(dtype)[0, :, :, :slots] for _ in range(2))
    begin, end = torch.tensor([0, 3, 17, 39, 5]), torch.tensor([40, 4, 40, 40, 22])
    which = torch.tensor([2, 0, 0, 1, 2]) if shared else None
    with torch.no_grad():
        assert kernels.decodes(q, k)
        out = kernels.decode(q, k, v, begin, end, which, 0.3)
    for b in range(rows):
        r = b if which is None else int(which[b])
        wanted = by_hand(q[b, :, 0], k[r], v[r], int(begin[b]), int(end[b]), 0.3)
        tight = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
        torch.testing.assert_close(out[b, :, 0].double(), wanted, **tight)


def test_a_row_s_bits_depend_on_that_row_alone() -> None:
    """Not on its neighbours, and not on where in the buffer it stands."""
    if not kernels.ready(torch.float32):
        pytest.skip("no kernels here")
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, 2, n, 32, generator=random) for n in (1, 64, 64))
    begin, end = torch.tensor([0, 10, 20, 30]), torch.full((4,), 50)
    moved_k, moved_v = torch.zeros_like(k), torch.zeros_like(v)
    moved_k[2, :, 3:33], moved_v[2, :, 3:33] = k[2, :, 20:50], v[2, :, 20:50]
    with torch.no_grad():
        together = kernels.decode(q, k, v, begin, end, None, 0.2)
        alone = kernels.decode(q[2:3], moved_k[2:3], moved_v[2:3], torch.tensor([3]), torch.tensor([33]), None, 0.2)
    assert torch.equal(together[2], alone[0])


def test_what_it_does_not_take() -> None:
    q, k = torch.zeros(2, 2, 1, 32), torch.zeros(2, 2, 9, 32)
    assert not kernels.decodes(q, k), "with gradients there is no backward pass"
    with torch.no_grad():
        assert not kernels.decodes(torch.zeros(2, 2, 2, 32), k) and not kernels.decodes(torch.zeros(2, 2, 1, 20), k)
        assert not kernels.decodes(q, k.double())
        if kernels.ready(torch.float32):
            for begin, end in ((0, 0), (5, 5), (-1, 3), (0, 10)):
                with pytest.raises(RuntimeError, match="slot"):
                    kernels.decode(q, k, k, torch.tensor([begin] * 2), torch.tensor([end] * 2), None, 1.0)
