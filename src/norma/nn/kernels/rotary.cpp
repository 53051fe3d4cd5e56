// Rotary positions in one reading (Su et al., 2104.09864, eq. 34): the pairs (i, i + n) of the first 2n features turn, the rest stays.
//
//     y_i = x_i cos - x_{i+n} sin        y_{i+n} = x_{i+n} cos + x_i sin        backward: the same by the opposite angle
//
// x (B, H, T, D) is read where it lies, be it a part of a wider product; y has the heads of a token side by side, as attention reads
// them. PyTorch's operators make six passes of it. Sums are fp32.

#include "kernels.h"

namespace {

Tensor rotary(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, bool back) {
  const Tensor x = x_.stride(-1) == 1 ? x_ : x_.contiguous(), cos = cos_.contiguous(), sin = sin_.contiguous();
  const int64_t B = x.size(0), H = x.size(1), L = x.size(2), D = x.size(3), n = cos.size(3);
  TORCH_CHECK(n % (2 * Vec::size()) == 0 && 2 * n <= D && cos.size(2) == L && (cos.size(0) == B || cos.size(0) == 1), "angles of other tokens, or of an odd width");
  Tensor y = at::empty({B, L, H, D}, x.options());
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const T *from = x.data_ptr<T>(), *c = cos.data_ptr<T>(), *s = sin.data_ptr<T>();
    T* to = y.data_ptr<T>();
    const Vec sign(back ? -1.0f : 1.0f);
    at::parallel_for(0, B * L, 64, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t b = token / L, t = token % L, angle = (cos.size(0) == 1 ? t : token) * n;
        for (int64_t h = 0; h < H; ++h) {
          const T* row = from + b * x.stride(0) + h * x.stride(1) + t * x.stride(2);
          T* out = to + (token * H + h) * D;
          for (int64_t i = 0; i < n; i += 2 * Vec::size()) {
            Vec first[2], second[2];
            for (int64_t v = 0; v < 2; ++v) {
              const int64_t j = i + v * Vec::size();
              const Vec u = widen(row + j), w = widen(row + n + j), cosine = widen(c + angle + j), sine = widen(s + angle + j) * sign;
              first[v] = u * cosine - w * sine, second[v] = at::vec::fmadd(u, sine, w * cosine);
            }
            store(out + i, first[0], first[1]), store(out + n + i, second[0], second[1]);
          }
          std::copy(row + 2 * n, row + D, out + 2 * n);
        }
      }
    });
  });
  return y.transpose(1, 2);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) { m.def("rotary(Tensor x, Tensor cos, Tensor sin, bool back) -> Tensor"); }
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) { m.impl("rotary", &rotary); }
