// Layer norm, forward and backward in one reading each (Ba et al., 1607.06450, eq. 4), with weights in fp32 whatever the rows are in.
//
//     y = h w + b,  h = (x - mean(x)) r,  r = 1 / sqrt(var(x) + eps)         dx = r (g - mean(g) - h mean(g h)),  g = dy w
//                                                                            dw = sum dy h       db = sum dy
// Letters: N rows, W features.

#include "kernels.h"

#include <cmath>

namespace {

std::tuple<Tensor, Tensor> layer_norm(const Tensor& x_, const Tensor& weight, const std::optional<Tensor>& bias_, double eps) {
  const Tensor x = x_.contiguous();
  const int64_t W = x.size(-1), N = x.numel() / W;
  const Tensor bias = bias_ ? bias_->contiguous() : at::zeros({W}, weight.options());
  Tensor y = at::empty(x.sizes(), x.options()), moments = at::empty({N, 2}, weight.options());  // mean and r of each row
  const float *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float* kept = moments.data_ptr<float>();
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t, int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n) {
        const T* row = x.data_ptr<T>() + n * W;
        T* to = y.data_ptr<T>() + n * W;
        Vec sum(0.0f), squares(0.0f);
        for (int64_t c = 0; c < W; c += Vec::size()) sum = sum + widen(row + c);
        const Vec mean(kept[2 * n] = total(sum) / W);
        for (int64_t c = 0; c < W; c += Vec::size()) {
          const Vec away = widen(row + c) - mean;
          squares = at::vec::fmadd(away, away, squares);
        }
        const Vec r(kept[2 * n + 1] = 1.0f / std::sqrt(total(squares) / W + static_cast<float>(eps)));
        const auto at = [&](int64_t c) { return at::vec::fmadd((widen(row + c) - mean) * r, widen(w + c), widen(b + c)); };
        for (int64_t c = 0; c < W; c += 2 * Vec::size()) store(to + c, at(c), at(c + Vec::size()));
      }
    });
  });
  return {y, moments};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward(const Tensor& grad_, const Tensor& x_, const Tensor& weight, const Tensor& moments) {
  const Tensor grad = grad_.contiguous(), x = x_.contiguous();
  const int64_t W = x.size(-1), N = x.numel() / W;
  Tensor dx = at::empty(x.sizes(), x.options()), dw = at::zeros({PARTS, W}, weight.options()), db = at::zeros({PARTS, W}, weight.options());
  const float *w = weight.data_ptr<float>(), *kept = moments.data_ptr<float>();
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t part, int64_t first, int64_t end) {
      float *to_w = dw.data_ptr<float>() + part * W, *to_b = db.data_ptr<float>() + part * W;
      for (int64_t n = first; n < end; ++n) {
        const T *row = x.data_ptr<T>() + n * W, *dy = grad.data_ptr<T>() + n * W;
        T* to = dx.data_ptr<T>() + n * W;
        const Vec mean(kept[2 * n]), r(kept[2 * n + 1]);
        Vec sum(0.0f), products(0.0f);
        for (int64_t c = 0; c < W; c += Vec::size()) {
          const Vec h = (widen(row + c) - mean) * r, d = widen(dy + c), g = d * widen(w + c);
          sum = sum + g, products = at::vec::fmadd(g, h, products);
          at::vec::fmadd(d, h, widen(to_w + c)).store(to_w + c), (widen(to_b + c) + d).store(to_b + c);
        }
        const Vec pull(total(products) / W * kept[2 * n + 1]), shift(total(sum) / W);
        const auto at = [&](int64_t c) { return (at::vec::fmsub(widen(dy + c), widen(w + c), shift) - (widen(row + c) - mean) * pull) * r; };
        for (int64_t c = 0; c < W; c += 2 * Vec::size()) store(to + c, at(c), at(c + Vec::size()));
      }
    });
  });
  return {dx, dw.sum(0), db.sum(0)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) {
  m.def("layer_norm(Tensor x, Tensor weight, Tensor? bias, float eps) -> (Tensor, Tensor)");
  m.def("layer_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor moments) -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) {
  m.impl("layer_norm", &layer_norm);
  m.impl("layer_norm_backward", &layer_norm_backward);
}
