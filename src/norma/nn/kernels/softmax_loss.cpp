// -log p of a target among many scores, and its gradient by the scores, written over them: a row at a time, so that whatever stands
// between two readings of a row stays in the cache. One exponential a score.
//
//     s = cap tanh((x + bias) / cap) / t       nats = log Z - s_target,  Z = sum exp s
//     loss = (1 - a) nats + a (log Z - mean s) + z (log Z)^2
//     gradient = factor (exp(s) / Z (1 + 2 z log Z) - a / V - (1 - a) onehot) (1 - tanh^2) / t
//
// Letters: N rows, V scores of a row; a: smoothing (1512.00567, section 7), z: of the z-loss (2204.02311, section 5), t: temperature.
// factor (N): what is minimised is the sum of factor loss; 1 where there is none.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

constexpr int64_t STEP = 2 * Vec::size();
constexpr float NO_SCORE = -std::numeric_limits<float>::infinity();

// Two vectors of a row of V from place i on, handed to use(first, second): what lies behind the row's end reads as no score.
template <typename T, typename F> void read(const T* row, int64_t i, int64_t V, F&& use) {
  if (i + STEP <= V) return use(widen(row + i), widen(row + i + Vec::size()));
  T edge[STEP];
  std::fill(std::copy(row + i, row + V, edge), edge + STEP, T(NO_SCORE));
  use(widen(edge), widen(edge + Vec::size()));
}

template <typename T> void write(T* row, int64_t i, int64_t V, Vec x, Vec y) {
  if (i + STEP <= V) return store(row + i, x, y);
  T edge[STEP];
  store(edge, x, y);
  std::copy(edge, edge + V - i, row + i);
}

struct Options {
  const float *bias, *factor;
  float softcap, temperature, z_loss, smoothing;  // softcap 0: none
  bool gradient;
};

// A row's scores as they are before the division by the temperature: the head's own, or finished in a thread's memory.
template <typename T> class Row {
  const Options& how;
  int64_t V;
  Buffer<float> finished, slope;  // slope: tanh

 public:
  Row(const Options& how, int64_t V) : how(how), V(V), finished(V + STEP), slope(how.softcap ? V + STEP : 1) {}
  bool plain() const { return !how.bias && !how.softcap; }
  float at(const T* row, int64_t i) const { return plain() ? float(row[i]) : finished[i]; }
  float steepness(int64_t i) const { return how.softcap ? 1.0f - slope[i] * slope[i] : 1.0f; }
  Vec steepness_of(int64_t i) const {
    const Vec tanh = Vec::loadu(slope + i);
    return Vec(1.0f) - tanh * tanh;
  }

  void finish(const T* row) {
    for (int64_t i = 0; i < V; i += STEP)
      read(row, i, V, [&](Vec x, Vec y) {
        if (how.bias) read(how.bias, i, V, [&](Vec b, Vec c) { x = x + b, y = y + c; });
        if (how.softcap) {
          x = (x / Vec(how.softcap)).tanh(), y = (y / Vec(how.softcap)).tanh();
          x.store(slope + i), y.store(slope + i + Vec::size());
          x = x * Vec(how.softcap), y = y * Vec(how.softcap);
        }
        x.store(finished + i), y.store(finished + i + Vec::size());
      });
  }
  template <typename F> void each(const T* row, F&& use) const {  // use(place, two vectors)
    for (int64_t i = 0; i < V; i += STEP) {
      const auto here = [&](Vec x, Vec y) { use(i, x, y); };
      if (plain()) read(row, i, V, here);
      else read<float>(finished, i, V, here);
    }
  }
};

// (loss, nats) of a row, whose scores become the gradient where it is asked for.
template <typename T> std::pair<float, float> loss(const Options& how, T* row, int64_t target, float factor, int64_t V, Row<T>& scores, float* terms) {
  if (!scores.plain()) scores.finish(row);
  Vec top[2] = {Vec(NO_SCORE), Vec(NO_SCORE)}, sum[2] = {Vec(0.0f), Vec(0.0f)};
  scores.each(row, [&](int64_t, Vec x, Vec y) { top[0] = at::vec::maximum(top[0], x), top[1] = at::vec::maximum(top[1], y); });
  const float most = at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return at::vec::maximum(a, b); }, at::vec::maximum(top[0], top[1]));
  const Vec most_(most), scale(LOG2E / how.temperature);
  scores.each(row, [&](int64_t i, Vec x, Vec y) {
    x = power((x - most_) * scale), y = power((y - most_) * scale);
    sum[0] = sum[0] + x, sum[1] = sum[1] + y;
    if (how.gradient) x.store(terms + i), y.store(terms + i + Vec::size());
  });
  const float Z = total(sum[0] + sum[1]) + 0.0f * most;  // a score that is no number, or infinite, is not to pass unseen
  const float log_Z = std::log(Z), nats = log_Z + (most - scores.at(row, target)) / how.temperature, whole = most / how.temperature + log_Z;
  float loss = nats + how.z_loss * whole * whole;
  if (how.smoothing) {
    const int64_t full = V / STEP * STEP;
    sum[0] = sum[1] = Vec(0.0f);
    scores.each(row, [&](int64_t i, Vec x, Vec y) { if (i < full) sum[0] = sum[0] + x, sum[1] = sum[1] + y; });
    float all = total(sum[0] + sum[1]);
    for (int64_t i = full; i < V; ++i) all += scores.at(row, i);
    loss += how.smoothing * (scores.at(row, target) - all / V) / how.temperature;
  }
  if (how.gradient) {
    const float f = factor / how.temperature, p = f * (1.0f + 2.0f * how.z_loss * whole) / Z, spread = f * how.smoothing / V;
    for (int64_t i = 0; i < V; i += STEP) {
      Vec x = at::vec::fmsub(Vec::loadu(terms + i), Vec(p), Vec(spread)), y = at::vec::fmsub(Vec::loadu(terms + i + Vec::size()), Vec(p), Vec(spread));
      if (how.softcap) x = x * scores.steepness_of(i), y = y * scores.steepness_of(i + Vec::size());
      write(row, i, V, x, y);
    }
    row[target] = T((terms[target] * p - spread - f * (1.0f - how.smoothing)) * scores.steepness(target));
  }
  return {loss, nats};
}

std::tuple<Tensor, Tensor> softmax_loss_(const Tensor& scores, const Tensor& targets_, const std::optional<Tensor>& bias_, const std::optional<Tensor>& factor_,
                                         double softcap, double temperature, double z_loss, double smoothing, bool gradient) {
  TORCH_CHECK(scores.dim() == 2 && scores.is_contiguous() && targets_.sizes() == scores.sizes().slice(0, 1), "scores (N, V) in order, targets (N)");
  const int64_t N = scores.size(0), V = scores.size(1);
  const auto fp32 = [](const std::optional<Tensor>& x, int64_t n) {
    TORCH_CHECK(!x || x->numel() == n, "a bias for each score, a factor for each row");
    return x ? x->to(at::kFloat).contiguous() : Tensor();
  };
  const Tensor bias = fp32(bias_, V), factor = fp32(factor_, N), targets = targets_.to(at::kLong).contiguous();
  Tensor losses = at::empty({N}, scores.options().dtype(at::kFloat)), nats = at::empty({N}, losses.options());
  const Options how{bias.defined() ? bias.data_ptr<float>() : nullptr, factor.defined() ? factor.data_ptr<float>() : nullptr,
                    float(softcap), float(temperature), float(z_loss), float(smoothing), gradient};
  const int64_t* target = targets.data_ptr<int64_t>();
  float *to_losses = losses.data_ptr<float>(), *to_nats = nats.data_ptr<float>();
  dispatch(scores, [&](auto zero) {
    using T = decltype(zero);
    T* data = scores.data_ptr<T>();
    at::parallel_for(0, N, 16, [&](int64_t begin, int64_t end) {
      Row<T> row(how, V);
      Buffer<float> terms(V + STEP);
      for (int64_t n = begin; n < end; ++n) {
        TORCH_CHECK_INDEX(target[n] >= 0 && target[n] < V, "target ", target[n], " among ", V, " scores");
        std::tie(to_losses[n], to_nats[n]) = loss<T>(how, data + n * V, target[n], how.factor ? how.factor[n] : 1.0f, V, row, terms);
      }
    });
  });
  return {losses, nats};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) {
  m.def("softmax_loss_(Tensor(a!) scores, Tensor targets, Tensor? bias, Tensor? factor, float softcap, float temperature, float z_loss, float smoothing, bool gradient) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) { m.impl("softmax_loss_", &softmax_loss_); }
