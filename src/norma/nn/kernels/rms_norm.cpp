// RMS norm, forward and backward in one reading each (Zhang and Sennrich, 1910.07467, eq. 4). PyTorch has no such kernel for a CPU: it
// makes the gradient of a dozen elementwise operators.
//
//     y = x r w,  r = 1 / sqrt(mean(x^2) + eps)         dx = r (g - x r^2 mean(g x)),  g = dy w         dw = sum dy x r
//
// Letters: N rows, W features.

#include "kernels.h"

#include <cmath>

namespace {

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x_, const Tensor& weight, double eps) {
  const Tensor x = x_.contiguous();
  const int64_t W = x.size(-1), N = x.numel() / W;
  Tensor y = at::empty(x.sizes(), x.options()), inverse = at::empty({N}, weight.options());
  const float* w = weight.data_ptr<float>();
  float* r = inverse.data_ptr<float>();
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t, int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n) {
        const T* row = x.data_ptr<T>() + n * W;
        T* to = y.data_ptr<T>() + n * W;
        Vec squares(0.0f);
        for (int64_t c = 0; c < W; c += Vec::size()) squares = at::vec::fmadd(widen(row + c), widen(row + c), squares);
        r[n] = 1.0f / std::sqrt(total(squares) / W + static_cast<float>(eps));
        const Vec scale(r[n]);
        for (int64_t c = 0, d = Vec::size(); c < W; c += 2 * Vec::size(), d += 2 * Vec::size())
          store(to + c, widen(row + c) * scale * widen(w + c), widen(row + d) * scale * widen(w + d));
      }
    });
  });
  return {y, inverse};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad_, const Tensor& x_, const Tensor& weight, const Tensor& inverse) {
  const Tensor grad = grad_.contiguous(), x = x_.contiguous();
  const int64_t W = x.size(-1), N = x.numel() / W;
  Tensor dx = at::empty(x.sizes(), x.options()), dw = at::zeros({PARTS, W}, weight.options());
  const float *w = weight.data_ptr<float>(), *r = inverse.data_ptr<float>();
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t part, int64_t first, int64_t end) {
      float* sum = dw.data_ptr<float>() + part * W;
      for (int64_t n = first; n < end; ++n) {
        const T *row = x.data_ptr<T>() + n * W, *dy = grad.data_ptr<T>() + n * W;
        T* to = dx.data_ptr<T>() + n * W;
        const Vec scale(r[n]);
        Vec products(0.0f);
        for (int64_t c = 0; c < W; c += Vec::size()) {
          const Vec both = widen(row + c) * widen(dy + c);
          products = at::vec::fmadd(both, widen(w + c), products);
          at::vec::fmadd(both, scale, widen(sum + c)).store(sum + c);
        }
        const Vec pull(total(products) / W * r[n] * r[n] * r[n]);
        const auto at = [&](int64_t c) { return widen(dy + c) * widen(w + c) * scale - widen(row + c) * pull; };
        for (int64_t c = 0; c < W; c += 2 * Vec::size()) store(to + c, at(c), at(c + Vec::size()));
      }
    });
  });
  return {dx, dw.sum(0)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)");
  m.def("rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor inverse) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) {
  m.impl("rms_norm", &rms_norm);
  m.impl("rms_norm_backward", &rms_norm_backward);
}
