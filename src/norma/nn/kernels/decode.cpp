// Attention of one query a row over a stretch of the keys and values that were cached before: a step of generation.
//
//     out[b, h] = softmax(scale q[b, h] K[r]^T) V[r]      r = rows[b], keys begin[b] to end[b] of it
//
// What bounds it is reading keys and values, so nothing outside a row's own stretch is read, nothing is copied to make rows alike, and
// rows that share a memory (an encoder's output) stand next to each other and find it in the cache. The numbers of a row depend on
// nothing but the row: not on its neighbours, nor on where in the buffer it stands, nor on threads.
//
// Letters: B rows of queries, S slots, H heads, G key/value heads, D features of a head.

#include "kernels.h"

#include <algorithm>
#include <vector>

namespace {

// (B or memories, G, S, D) in whatever strides it has, features side by side.
template <typename T> struct Kept {
  const T* data;
  int64_t row, head, slot;
  explicit Kept(const Tensor& x) : data(x.data_ptr<T>()), row(x.stride(0)), head(x.stride(1)), slot(x.stride(2)) {}
  const T* at(int64_t r, int64_t g, int64_t s) const { return data + r * row + g * head + s * slot; }
};

template <typename T> float product(const float* q, const T* k, int64_t D) {
  Vec one(0.0f), other(0.0f);
  for (int64_t d = 0; d < D; d += 2 * Vec::size()) {
    one = at::vec::fmadd(Vec::loadu(q + d), widen(k + d), one);
    other = at::vec::fmadd(Vec::loadu(q + d + Vec::size()), widen(k + d + Vec::size()), other);
  }
  return total(one + other);
}

// scores of n keys → their weights, which sum to 1
void softmax(float* x, int64_t n) {
  const float most = *std::max_element(x, x + n);
  float sum = 0.0f;
  int64_t i = 0;
  for (; i + Vec::size() <= n; i += Vec::size()) {
    const Vec e = (Vec::loadu(x + i) - Vec(most)).exp();
    e.store(x + i);
    sum += total(e);
  }
  for (; i < n; ++i) sum += x[i] = std::exp(x[i] - most);
  for (i = 0; i < n; ++i) x[i] /= sum;
}

Tensor decode(const Tensor& q_, const Tensor& k, const Tensor& v, const Tensor& begin, const Tensor& end, const std::optional<Tensor>& rows, double scale) {
  const Tensor q = q_.contiguous();
  const int64_t B = q.size(0), H = q.size(1), D = q.size(3), G = k.size(1), group = H / G;
  TORCH_CHECK(q.size(2) == 1 && D % (2 * Vec::size()) == 0 && k.stride(3) == 1 && v.stride(3) == 1, "one query a row, features side by side");
  const Tensor from_ = begin.contiguous(), to_ = end.contiguous(), rows_ = rows ? rows->contiguous() : Tensor();
  const int64_t *from = from_.data_ptr<int64_t>(), *to = to_.data_ptr<int64_t>(), *row = rows ? rows_.data_ptr<int64_t>() : nullptr;
  for (int64_t b = 0; b < B; ++b) {
    TORCH_CHECK(0 <= from[b] && from[b] < to[b] && to[b] <= k.size(2), "a row sees no slot, or one that is not there");
    TORCH_CHECK(!row || (0 <= row[b] && row[b] < k.size(0)), "a row of keys that is not there");
  }
  Tensor out = at::empty({B, 1, H, D}, q.options());
  dispatch(q, [&](auto zero) {
    using T = decltype(zero);
    const Kept<T> keys(k), values(v);
    at::parallel_for(0, B * G, 1, [&](int64_t first, int64_t last) {
      std::vector<float> weights, query(group * D), sum(D);
      for (int64_t task = first; task < last; ++task) {
        const int64_t b = task / G, g = task % G, r = row ? row[b] : b, n = to[b] - from[b];
        weights.resize(group * n);
        const T* asked = q.data_ptr<T>() + (b * H + g * group) * D;
        for (int64_t d = 0; d < group * D; ++d) query[d] = static_cast<float>(asked[d]) * static_cast<float>(scale);
        for (int64_t s = 0; s < n; ++s)
          for (int64_t h = 0; h < group; ++h) weights[h * n + s] = product(query.data() + h * D, keys.at(r, g, from[b] + s), D);
        for (int64_t h = 0; h < group; ++h) {
          float* w = weights.data() + h * n;
          softmax(w, n);
          T* answer = out.data_ptr<T>() + (b * H + g * group + h) * D;
          for (int64_t d = 0; d < D; d += 2 * Vec::size()) {  // two vectors of the answer at a time stay in registers
            Vec one(0.0f), other(0.0f);
            for (int64_t s = 0; s < n; ++s) {
              const T* value = values.at(r, g, from[b] + s) + d;
              one = at::vec::fmadd(Vec(w[s]), widen(value), one);
              other = at::vec::fmadd(Vec(w[s]), widen(value + Vec::size()), other);
            }
            store(answer + d, one, other);
          }
        }
      }
    });
  });
  return out.transpose(1, 2);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) { m.def("decode(Tensor q, Tensor k, Tensor v, Tensor begin, Tensor end, Tensor? rows, float scale) -> Tensor"); }
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) { m.impl("decode", &decode); }
