// The activation of a feed-forward layer, with the bias before it or the gate's product after it: one reading forward, one backward.
//
//     y = act(x + b)      dx = dy act'(x + b)      db = sum of dx over the rows
//     y = act(g) u        dg = dy u act'(g)        du = dy act(g)                    x = (g, u) side by side, as one product gives them
//
// Backward keeps x alone; `again` gives y once more beside the gradient, for whoever wants it and did not keep it.
// Everything between a load and a store is fp32. Letters: N rows, F features.

#include "kernels.h"

#include <string>
#include <string_view>

namespace {

struct Point { Vec value, slope; };  // act(x), act'(x)

// 1 / (1 + 2^x), the logistic function of -x log 2; 0 below 2^-60, so that no product with it is a number that is no longer normal.
inline Vec logistic(Vec x) { return where(compare<_CMP_LT_OQ>(x, Vec(60.0f)), inverse(Vec(1.0f) + power(x)), Vec(0.0f)); }

struct Relu {
  static Point at(Vec x) {
    const Vec zero(0.0f);
    return {greater(zero, x), where(compare<_CMP_NLE_UQ>(x, zero), Vec(1.0f), zero)};
  }
};

struct Silu {
  static Point at(Vec x) {
    const Vec s = logistic(x * Vec(-LOG2E)), y = x * s;
    return {y, at::vec::fnmadd(y, s, y) + s};
  }
};

// x (1 + tanh u) / 2 = x sigmoid(2 u), with 2 u = x (A + B x^2).
struct GeluTanh {
  static Point at(Vec x) {
    constexpr float A = 1.5957691216057308f, B = 0.07135481627260025f;
    const Vec square = x * x, s = logistic(x * at::vec::fmadd(square, Vec(-LOG2E * B), Vec(-LOG2E * A))), y = x * s;
    return {y, at::vec::fmadd(at::vec::fnmadd(y, s, y), at::vec::fmadd(square, Vec(3 * B), Vec(A)), s)};
  }
};

// x Phi(x); Phi(-|x|) = erfc(|x| / sqrt 2) / 2 by Abramowitz and Stegun 7.1.26 (within 7.5e-8), whose e^(-x^2 / 2) the slope wants too.
struct Gelu {
  static Point at(Vec x) {
    const Vec e = power(x * x * Vec(-0.5f * LOG2E)), t = inverse(at::vec::fmadd(x.abs(), Vec(0.3275911f * 0.70710678f), Vec(1.0f)));
    Vec sum(0.5f * 1.061405429f);
    for (float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) sum = at::vec::fmadd(sum, t, Vec(0.5f * c));
    const Vec tail = sum * t * e, phi = where(compare<_CMP_NLT_UQ>(x, Vec(0.0f)), Vec(1.0f) - tail, tail);
    return {x * phi, at::vec::fmadd(x * Vec(0.3989422804f), e, phi)};
  }
};

template <typename F> void named(std::string_view name, F&& run) {
  if (name == "relu") return run(Relu{});
  if (name == "silu") return run(Silu{});
  if (name == "gelu") return run(Gelu{});
  TORCH_CHECK(name == "gelu_tanh", "no such activation: ", std::string(name));
  run(GeluTanh{});
}

// run(an activation, a zero of the tensor's type), compiled for each pair.
template <typename F> void dispatch(std::string_view name, const Tensor& x, F&& run) {
  named(name, [&](auto act) { dispatch(x, [&](auto zero) { run(act, zero); }); });
}

constexpr int64_t STEP = 2 * Vec::size();

Tensor fp32(const std::optional<Tensor>& bias, const Tensor& x) {
  return bias ? bias->to(at::kFloat).contiguous() : at::zeros({x.size(-1)}, x.options().dtype(at::kFloat));
}

Tensor activation(const Tensor& x_, const std::optional<Tensor>& bias_, c10::string_view name) {
  const Tensor x = x_.contiguous(), bias = fp32(bias_, x);
  const int64_t F = x.size(-1), N = x.numel() / F;
  Tensor y = at::empty(x.sizes(), x.options());
  const float* b = bias.data_ptr<float>();
  dispatch(name, x, [&](auto act, auto zero) {
    using T = decltype(zero);
    const T* from = x.data_ptr<T>();
    T* to = y.data_ptr<T>();
    parts(N, [&](int64_t, int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n)
        for (int64_t c = 0; c < F; c += STEP) {
          const auto at = [&](int64_t c) { return act.at(widen(from + n * F + c) + widen(b + c)).value; };
          store(to + n * F + c, at(c), at(c + Vec::size()));
        }
    });
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> activation_backward(const Tensor& grad_, const Tensor& x_, const std::optional<Tensor>& bias_,
                                                       c10::string_view name, bool again) {
  const Tensor grad = grad_.contiguous(), x = x_.contiguous(), bias = fp32(bias_, x);
  const int64_t F = x.size(-1), N = x.numel() / F;
  Tensor dx = at::empty(x.sizes(), x.options()), db = at::zeros({PARTS, F}, bias.options());
  Tensor y = again ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  const float* b = bias.data_ptr<float>();
  dispatch(name, x, [&](auto act, auto zero) {
    using T = decltype(zero);
    const T *from = x.data_ptr<T>(), *dy = grad.data_ptr<T>();
    T *to = dx.data_ptr<T>(), *made = y.data_ptr<T>();
    parts(N, [&](int64_t part, int64_t first, int64_t end) {
      float* sum = db.data_ptr<float>() + part * F;
      const auto rows = [&](int64_t n, auto count) {
        for (int64_t c = 0, d = Vec::size(); c < F; c += STEP, d += STEP) {
          Vec left = widen(sum + c), right = widen(sum + d);
          for (int64_t r = 0; r < count; ++r) {
            const int64_t row = (n + r) * F;
            const Point p = act.at(widen(from + row + c) + widen(b + c)), q = act.at(widen(from + row + d) + widen(b + d));
            const Vec dx0 = widen(dy + row + c) * p.slope, dx1 = widen(dy + row + d) * q.slope;
            left = left + dx0, right = right + dx1;
            store(to + row + c, dx0, dx1);
            if (again) store(made + row + c, p.value, q.value);
          }
          left.store(sum + c), right.store(sum + d);
        }
      };
      int64_t n = first;
      for (; n + 4 <= end; n += 4) rows(n, std::integral_constant<int64_t, 4>{});
      for (; n < end; ++n) rows(n, std::integral_constant<int64_t, 1>{});
    });
  });
  return {dx, db.sum(0), y};
}

Tensor gated(const Tensor& x_, c10::string_view name) {
  const Tensor x = x_.contiguous();
  const int64_t F = x.size(-1) / 2, N = x.numel() / (2 * F);
  auto shape = x.sizes().vec();
  shape.back() = F;
  Tensor y = at::empty(shape, x.options());
  dispatch(name, x, [&](auto act, auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t, int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n) {
        const T *g = x.data_ptr<T>() + 2 * n * F, *u = g + F;
        T* to = y.data_ptr<T>() + n * F;
        const auto at = [&](int64_t c) { return act.at(widen(g + c)).value * widen(u + c); };
        for (int64_t c = 0; c < F; c += STEP) store(to + c, at(c), at(c + Vec::size()));
      }
    });
  });
  return y;
}

std::tuple<Tensor, Tensor> gated_backward(const Tensor& grad_, const Tensor& x_, c10::string_view name, bool again) {
  const Tensor grad = grad_.contiguous(), x = x_.contiguous();
  const int64_t F = x.size(-1) / 2, N = x.numel() / (2 * F);
  Tensor dx = at::empty(x.sizes(), x.options()), y = again ? at::empty(grad.sizes(), x.options()) : at::empty({0}, x.options());
  dispatch(name, x, [&](auto act, auto zero) {
    using T = decltype(zero);
    parts(N, [&](int64_t, int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n) {
        const T *g = x.data_ptr<T>() + 2 * n * F, *u = g + F, *dy = grad.data_ptr<T>() + n * F;
        T *dg = dx.data_ptr<T>() + 2 * n * F, *du = dg + F, *made = y.data_ptr<T>() + n * F;
        for (int64_t c = 0, d = Vec::size(); c < F; c += STEP, d += STEP) {
          const Point p = act.at(widen(g + c)), q = act.at(widen(g + d));
          const Vec dy0 = widen(dy + c), dy1 = widen(dy + d), u0 = widen(u + c), u1 = widen(u + d);
          store(dg + c, dy0 * u0 * p.slope, dy1 * u1 * q.slope);
          store(du + c, dy0 * p.value, dy1 * q.value);
          if (again) store(made + c, p.value * u0, q.value * u1);
        }
      }
    });
  });
  return {dx, y};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) {
  m.def("activation(Tensor x, Tensor? bias, str name) -> Tensor");
  m.def("activation_backward(Tensor grad, Tensor x, Tensor? bias, str name, bool again) -> (Tensor, Tensor, Tensor)");
  m.def("gated(Tensor x, str name) -> Tensor");
  m.def("gated_backward(Tensor grad, Tensor x, str name, bool again) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) {
  m.impl("activation", &activation);
  m.impl("activation_backward", &activation_backward);
  m.impl("gated", &gated);
  m.impl("gated_backward", &gated_backward);
}
