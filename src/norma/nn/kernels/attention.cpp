// Attention on a CPU in tiles, forward and backward, so that scores never leave the cache (Dao, 2307.08691).
//
//     out = softmax(scale q k^T + bias) v         kept for the backward pass: out, and the logarithm of each row's sum
//
// Everything between two products is held transposed, a key a row and BLOCK queries side by side: maximum, sum, and what is kept of a
// query are then vectors, and no product needs an operand turned that was not turned once for all:
//
//     S^T = K Q^T      O^T = V^T P^T      dP^T = V dO^T      dV = P^T dO      dK = dS^T Q      dQ^T = K^T dS^T
//
// Products are oneDNN's, through ATen (AMX, AVX-512 bf16 or fp32). Their right operand has two rows side by side, a word for each pair, in
// bf16 (VNNI), and is plain in fp32. Two moves make every layout: pairs() makes words of two rows, turn() transposes words of 32 bits.
//
//     right operand x      pairs(x)            right operand x^T     turn(x)            left operand x^T     turn(pairs(x))
//
// A task is one key/value head of one text (of a few texts, where the bias has a gradient): nothing is added in an order that
// threads decide, so the bits depend neither on them nor on their number.
//
// Letters: B texts, T queries, S keys, H heads, G key/value heads, D features of a head.

#include "kernels.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

constexpr int64_t BLOCK = 64;     // queries, and keys, of a tile
constexpr int64_t CHUNKS = 4;       // parts of a batch whose gradients of a shared bias are summed by themselves
constexpr int64_t WIDE = BLOCK / Vec::size();  // vectors of a tile's row
constexpr float NOTHING = -1e29f;  // a query whose best score is below sees no key, and passes no gradient

// BLOCK rows of a strided matrix, zeros after the last.
template <typename T> void load(const T* x, int64_t stride, T* out, int64_t rows, int64_t columns, int64_t width) {
  if (rows < BLOCK || columns < width) std::memset(static_cast<void*>(out), 0, BLOCK * width * sizeof(T));
  for (int64_t i = 0; i < rows; ++i) std::memcpy(out + i * width, x + i * stride, columns * sizeof(T));
}

// c (M, N) = a (M, K) b (K, N), or added to c; the left operand and c have their rows one after the other.
template <typename T> void product(int64_t M, int64_t N, int64_t K, const std::type_identity_t<T>* a, const float* b, float* c, bool add) {
  at::native::cpublas::brgemm(M, N, K, K, N, N, add, a, reinterpret_cast<const T*>(b), c, ROWS<T> == 2);
}

// The same columns of two rows, x above y, as pairs() would make them; `columns` is how long a row is.
template <typename T> void store_pairs(float* words, int64_t columns, Vec x, Vec y) {
  if constexpr (ROWS<T> == 1) x.store(words), y.store(words + columns);
  else {
#ifdef BF16_IN_HARDWARE
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(words, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(y, x)));
#else
    T both[2 * Vec::size()];
    store(both, x, y);
    pairs(both, Vec::size(), words, 2, Vec::size());
#endif
  }
}

// The w-th vector of a row.
inline Vec vec(const float* from, int64_t w = 0) { return Vec::loadu(from + w * Vec::size()); }

// A (., heads, length, D) tensor in whatever strides it has, features side by side.
template <typename T> struct Strided {
  T* data;
  int64_t batch, head, row;
  explicit Strided(const Tensor& x) : data(x.data_ptr<T>()), batch(x.stride(0)), head(x.stride(1)), row(x.stride(2)) {}
  T* at(int64_t b, int64_t h, int64_t i) const { return data + b * batch + h * head + i * row; }
};

struct Sizes {
  int64_t B, T, S, H, G, D;
  bool causal;
  float scale;
  int64_t group() const { return H / G; }
  int64_t area() const { return BLOCK * D; }
  int64_t key_blocks() const { return (S + BLOCK - 1) / BLOCK; }
  int64_t visible(int64_t last) const { return causal ? (last + S - T) / BLOCK + 1 : key_blocks(); }  // blocks that queries up to `last` see
};

// (rows of words, columns of words) of a tile of BLOCK rows and D columns
template <typename T> int64_t half(int64_t n) { return n / ROWS<T>; }

// What tasks share: a tile of scores, and the layouts of a strided tile.
template <typename T> struct Tiles {
  const Sizes& n;
  const Strided<T>* bias;
  Buffer<T> tile{BLOCK * std::max(n.D, BLOCK)}, bias_turned{BLOCK * BLOCK};
  Buffer<float> words{BLOCK * std::max(n.D, BLOCK)};

  // (BLOCK, D) of x from row i on, zeros after its `length` rows.
  void load(const Strided<T>& x, int64_t b, int64_t h, int64_t i, int64_t length, T* out) {
    ::load(x.at(b, h, i), x.row, out, std::min(BLOCK, length - i), n.D, n.D);
  }
  void right(const T* x, float* out) { pairs(x, n.D, out, BLOCK, n.D); }
  void right_turned(const T* x, float* out) { turn(reinterpret_cast<const float*>(x), half<T>(n.D), out, BLOCK, half<T>(n.D)); }
  void left_turned(const T* x, float* out) { right(x, words), turn(words, n.D, out, half<T>(BLOCK), n.D); }

  // The raw products of a tile made ready: power(factor s) are the softmax's terms, but for their sum. Returns the factor.
  float finish(float* s, int64_t b, int64_t h, int64_t t, int64_t key) {
    if (bias) {
      ::load(bias->at(b, h, t) + key, bias->row, tile.operator T*(), std::min(BLOCK, n.T - t), std::min(BLOCK, n.S - key), BLOCK);
      pairs(tile.operator T*(), BLOCK, words, BLOCK, BLOCK);
      turn(words, BLOCK, reinterpret_cast<float*>(bias_turned.operator T*()), half<T>(BLOCK), BLOCK);
      for (int64_t i = 0; i < BLOCK * BLOCK; i += Vec::size())
        at::vec::fmadd(vec(s + i), Vec(LOG2E * n.scale), widen(bias_turned + i) * Vec(LOG2E)).store(s + i);
    }
    for (int64_t i = 0; i < BLOCK; ++i) {
      const int64_t first = key + i >= n.S ? BLOCK : n.causal ? key + i - (n.S - n.T) - t : 0;  // the first query that sees this key
      if (first > 0) std::fill_n(s + i * BLOCK, std::min(first, BLOCK), -std::numeric_limits<float>::infinity());
    }
    return bias ? 1.0f : LOG2E * n.scale;
  }
};

// (rows, D) fp32, times a factor for each row or for all, to its place.
template <typename T, typename F> void put(const float* x, const Strided<T>& to, int64_t b, int64_t h, int64_t i, int64_t rows, int64_t D, F&& factor) {
  for (int64_t r = 0; r < rows; ++r) {
    const Vec f(factor(r));
    for (int64_t c = 0; c < D; c += 2 * Vec::size()) store(to.at(b, h, i + r) + c, Vec::loadu(x + r * D + c) * f, Vec::loadu(x + r * D + c + Vec::size()) * f);
  }
}

template <typename T>
void forward(const Sizes& n, const Strided<T>& q, const Strided<T>& k, const Strided<T>& v, const Strided<T>* bias, const Strided<T>& out, float* lse) {
  const int64_t blocks = n.key_blocks(), area = n.area();
  at::parallel_for(0, n.B * n.G, 1, [&](int64_t begin, int64_t end) {
    Tiles<T> tiles{n, bias};
    Buffer<T> keys(blocks * area), tile(area);
    Buffer<float> values(blocks * area), query(area), s(BLOCK * BLOCK), p(BLOCK * BLOCK), o(area), top(BLOCK), sum(BLOCK);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / n.G, g = task % n.G;
      for (int64_t j = 0; j < blocks; ++j) {
        tiles.load(k, b, g, j * BLOCK, n.S, keys + j * area);
        tiles.load(v, b, g, j * BLOCK, n.S, tile);
        tiles.left_turned(tile, values + j * area);
      }
      for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h)
        for (int64_t t = 0; t < n.T; t += BLOCK) {
          const int64_t rows = std::min(BLOCK, n.T - t), visible = n.visible(t + rows - 1);
          tiles.load(q, b, h, t, n.T, tile);
          tiles.right_turned(tile, query);
          std::fill_n(top.operator float*(), BLOCK, -std::numeric_limits<float>::infinity());
          std::fill_n(sum.operator float*(), BLOCK, 0.0f);
          for (int64_t j = 0; j < visible; ++j) {
            product<T>(BLOCK, BLOCK, n.D, keys + j * area, query, s, false);
            const Vec factor(tiles.finish(s, b, h, t, j * BLOCK));
            Vec now[WIDE], total[WIDE], shrink[WIDE];
            for (int64_t w = 0; w < WIDE; ++w) now[w] = vec(s, w), total[w] = Vec(0.0f);
            for (int64_t i = 1; i < BLOCK; ++i)
              for (int64_t w = 0; w < WIDE; ++w) now[w] = at::vec::maximum(now[w], vec(s + i * BLOCK, w));
            for (int64_t w = 0; w < WIDE; ++w) {
              const Vec before = vec(top, w);
              now[w] = at::vec::maximum(before, now[w] * factor), shrink[w] = power(before - now[w]);
              now[w].store(top + w * Vec::size());
            }
            for (int64_t i = 0; i < BLOCK; i += 2)
              for (int64_t w = 0; w < WIDE; ++w) {
                const Vec p0 = power(at::vec::fmsub(vec(s + i * BLOCK, w), factor, now[w])), p1 = power(at::vec::fmsub(vec(s + (i + 1) * BLOCK, w), factor, now[w]));
                total[w] = total[w] + (p0 + p1);
                store_pairs<T>(p + half<T>(i * BLOCK) + w * Vec::size(), BLOCK, p0, p1);
              }
            for (int64_t w = 0; w < WIDE; ++w) at::vec::fmadd(vec(sum, w), shrink[w], total[w]).store(sum + w * Vec::size());
            for (int64_t i = 0; j && i < n.D; ++i)
              for (int64_t w = 0; w < WIDE; ++w) (vec(o + i * BLOCK, w) * shrink[w]).store(o + i * BLOCK + w * Vec::size());
            product<T>(n.D, BLOCK, BLOCK, reinterpret_cast<T*>(values + j * area), p, o, j > 0);
          }
          turn(o, BLOCK, tiles.words, n.D, BLOCK);
          put(tiles.words, out, b, h, t, rows, n.D, [&](int64_t r) { return 1.0f / sum[r]; });
          for (int64_t r = 0; r < rows; ++r)
            lse[(b * n.H + h) * n.T + t + r] = top[r] < NOTHING ? std::numeric_limits<float>::infinity() : top[r] + std::log2(sum[r]);
        }
    }
    at::native::cpublas::brgemm_release(ROWS<T> == 2);
  });
}

template <typename T> struct Gradients { Strided<T> q, k, v; };

template <typename T>
void backward(const Sizes& n, const Strided<T>& q, const Strided<T>& k, const Strided<T>& v, const Strided<T>* bias, const Strided<T>& out, const float* lse,
              const Strided<T>& grad, const Gradients<T>& to, float* to_bias) {
  const int64_t blocks = n.key_blocks(), area = n.area(), chunks = to_bias ? std::min(n.B, CHUNKS) : n.B;
  at::parallel_for(0, chunks * n.G, 1, [&](int64_t begin, int64_t end) {
    Tiles<T> tiles{n, bias};
    Buffer<T> keys(blocks * area), values(blocks * area), tile(area), p(BLOCK * BLOCK), ds(BLOCK * BLOCK);
    Buffer<float> keys_turned(blocks * area), q_turned(area), q_pairs(area), g_turned(area), g_pairs(area), norm(BLOCK), delta(BLOCK);
    Buffer<float> s(BLOCK * BLOCK), dp(BLOCK * BLOCK), ds_pairs(BLOCK * BLOCK), dk(blocks * area), dv(blocks * area), dq(area);
    const auto text = [&](int64_t chunk, int64_t b, int64_t g, bool first) {
      for (int64_t j = 0; j < blocks; ++j) {
        tiles.load(k, b, g, j * BLOCK, n.S, keys + j * area);
        tiles.load(v, b, g, j * BLOCK, n.S, values + j * area);
        tiles.left_turned(keys + j * area, keys_turned + j * area);
      }
      std::fill_n(dk.operator float*(), blocks * area, 0.0f), std::fill_n(dv.operator float*(), blocks * area, 0.0f);
      for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h)
        for (int64_t t = 0; t < n.T; t += BLOCK) {
          const int64_t rows = std::min(BLOCK, n.T - t), visible = n.visible(t + rows - 1);
          tiles.load(q, b, h, t, n.T, tile);
          tiles.right(tile, q_pairs), tiles.right_turned(tile, q_turned);
          tiles.load(grad, b, h, t, n.T, tile);
          tiles.right(tile, g_pairs), tiles.right_turned(tile, g_turned);
          for (int64_t r = 0; r < BLOCK; ++r) {
            Vec total(0.0f);
            for (int64_t c = 0; r < rows && c < n.D; c += Vec::size()) total = total + widen(out.at(b, h, t + r) + c) * widen(tile + r * n.D + c);
            delta[r] = ::total(total);
            norm[r] = r < rows ? lse[(b * n.H + h) * n.T + t + r] : std::numeric_limits<float>::infinity();
          }
          for (int64_t j = 0; j < visible; ++j) {
            product<T>(BLOCK, BLOCK, n.D, keys + j * area, q_turned, s, false);
            product<T>(BLOCK, BLOCK, n.D, values + j * area, g_turned, dp, false);
            const Vec factor(tiles.finish(s, b, h, t, j * BLOCK));
            for (int64_t i = 0; i < BLOCK; i += 2)
              for (int64_t w = 0; w < WIDE; w += 2) {
                const int64_t c = w * Vec::size(), d = c + Vec::size();
                Vec ds0[2], ds1[2];
                for (int64_t r = 0; r < 2; ++r) {
                  const int64_t x = (i + r) * BLOCK + c, y = x + Vec::size();
                  const Vec p0 = power(at::vec::fmsub(vec(s + x), factor, vec(norm + c))), p1 = power(at::vec::fmsub(vec(s + y), factor, vec(norm + d)));
                  ds0[r] = p0 * (vec(dp + x) - vec(delta + c)), ds1[r] = p1 * (vec(dp + y) - vec(delta + d));
                  store(p + x, p0, p1), store(ds + x, ds0[r], ds1[r]);
                  if (to_bias) ds0[r].store(s + x), ds1[r].store(s + y);
                }
                store_pairs<T>(ds_pairs + half<T>(i * BLOCK) + c, BLOCK, ds0[0], ds0[1]), store_pairs<T>(ds_pairs + half<T>(i * BLOCK) + d, BLOCK, ds1[0], ds1[1]);
              }
            product<T>(BLOCK, n.D, BLOCK, p, g_pairs, dv + j * area, true);
            product<T>(BLOCK, n.D, BLOCK, ds, q_pairs, dk + j * area, true);
            product<T>(n.D, BLOCK, BLOCK, reinterpret_cast<T*>(keys_turned + j * area), ds_pairs, dq, j > 0);
            if (!to_bias) continue;
            turn(s, BLOCK, dp, BLOCK, BLOCK);
            for (int64_t r = 0; r < rows; ++r) {
              float* row = to_bias + ((chunk * n.H + h) * n.T + t + r) * n.S + j * BLOCK;
              for (int64_t c = 0; c < std::min(BLOCK, n.S - j * BLOCK); ++c) row[c] = dp[r * BLOCK + c] + (first ? 0.0f : row[c]);
            }
          }
          turn(dq, BLOCK, tiles.words, n.D, BLOCK);
          put(tiles.words, to.q, b, h, t, rows, n.D, [&](int64_t) { return n.scale; });
        }
      put(dk, to.k, b, g, 0, n.S, n.D, [&](int64_t) { return n.scale; });
      put(dv, to.v, b, g, 0, n.S, n.D, [&](int64_t) { return 1.0f; });
    };
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task / n.G;
      for (int64_t b = n.B * chunk / chunks; b < n.B * (chunk + 1) / chunks; ++b) text(chunk, b, task % n.G, b == n.B * chunk / chunks);
    }
    at::native::cpublas::brgemm_release(ROWS<T> == 2);
  });
}

// ── tensors ──
Tensor rows(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

// (B, heads, length, D) with the heads of a token side by side, as the next layer reads them.
Tensor heads(int64_t B, int64_t n, int64_t length, int64_t D, const Tensor& like) { return at::empty({B, length, n, D}, like.options()).transpose(1, 2); }

Sizes sizes(const Tensor& q, const Tensor& k, bool causal, double scale) {
  return {q.size(0), q.size(2), k.size(2), q.size(1), k.size(1), q.size(3), causal, static_cast<float>(scale)};
}

std::tuple<Tensor, Tensor> attention(const Tensor& q_, const Tensor& k_, const Tensor& v_, const std::optional<Tensor>& bias_, bool causal, double scale) {
  const Tensor q = rows(q_), k = rows(k_), v = rows(v_);
  const Sizes n = sizes(q, k, causal, scale);
  Tensor out = heads(n.B, n.H, n.T, n.D, q), lse = at::empty({n.B, n.H, n.T}, q.options().dtype(at::kFloat)), bias;
  if (bias_) bias = rows(bias_->expand({n.B, n.H, n.T, n.S}));
  dispatch(q, [&](auto zero) {
    using T = decltype(zero);
    std::optional<Strided<T>> added;
    if (bias_) added.emplace(bias);
    forward<T>(n, Strided<T>(q), Strided<T>(k), Strided<T>(v), added ? &*added : nullptr, Strided<T>(out), lse.data_ptr<float>());
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(const Tensor& grad_, const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                                              const std::optional<Tensor>& bias_, const Tensor& out, const Tensor& lse, bool causal,
                                                              double scale, bool learn_bias) {
  const Tensor q = rows(q_), k = rows(k_), v = rows(v_), grad = rows(grad_);
  const Sizes n = sizes(q, k, causal, scale);
  Tensor dq = heads(n.B, n.H, n.T, n.D, q), dk = heads(n.B, n.G, n.S, n.D, q), dv = heads(n.B, n.G, n.S, n.D, q), bias;
  const std::array<int64_t, 4> shape{learn_bias ? std::min(n.B, CHUNKS) : 0, n.H, n.T, n.S};
  Tensor dbias = causal ? at::zeros(shape, lse.options()) : at::empty(shape, lse.options());  // causal: tiles that nobody sees stay zero
  if (bias_) bias = rows(bias_->expand({n.B, n.H, n.T, n.S}));
  dispatch(q, [&](auto zero) {
    using T = decltype(zero);
    std::optional<Strided<T>> added;
    if (bias_) added.emplace(bias);
    backward<T>(n, Strided<T>(q), Strided<T>(k), Strided<T>(v), added ? &*added : nullptr, Strided<T>(out), lse.data_ptr<float>(), Strided<T>(grad),
                {Strided<T>(dq), Strided<T>(dk), Strided<T>(dv)}, learn_bias ? dbias.data_ptr<float>() : nullptr);
  });
  return {dq, dk, dv, learn_bias ? dbias.sum(0, true).to(q.scalar_type()) : dbias.to(q.scalar_type())};
}

}  // namespace

TORCH_LIBRARY(norma_cpu, m) {
  m.def("attention(Tensor q, Tensor k, Tensor v, Tensor? bias, bool causal, float scale) -> (Tensor, Tensor)");
  m.def("attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor out, Tensor lse, bool causal, float scale, bool learn_bias) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) {
  m.impl("attention", &attention);
  m.impl("attention_backward", &attention_backward);
}
