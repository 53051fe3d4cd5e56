// What the kernels share: vectors of fp32 in registers, whatever is in memory (fp32 or bf16), and the layouts of oneDNN's products.
//
// A vector is one of AVX-512 or of AVX2, as torch says of the CPU. Only this file knows the difference, but for bf16 where it is arithmetic.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <tuple>

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define BF16_IN_HARDWARE
#endif

namespace {

using at::BFloat16;
using at::Tensor;
using Vec = at::vec::Vectorized<float>;

constexpr float LOG2E = 1.4426950408889634f;

template <typename T> constexpr int64_t ROWS = sizeof(float) / sizeof(T);  // rows in a word: 2 in bf16, 1 in fp32

// A vector of fp32 from either type.
template <typename T> Vec widen(const T* from) {
  if constexpr (ROWS<T> == 1) return Vec::loadu(from);
  else {
    Vec out;
    at::vec::load_to_float<T>(from, out);
    return out;
  }
}

// Two vectors one after the other.
inline void store(float* to, Vec x, Vec y) { x.store(to), y.store(to + Vec::size()); }
inline void store(BFloat16* to, Vec x, Vec y) {
#ifdef BF16_IN_HARDWARE
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x));
#else
  at::vec::convert_from_float<BFloat16>(x, y).store(to);
#endif
}

inline float total(Vec x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

// Which numbers of a vector: Mask; compare<_CMP_...>(x, y) makes one, where(mask, x, y) takes x there and y elsewhere.
#ifdef CPU_CAPABILITY_AVX512
using Mask = __mmask16;
template <int how> Mask compare(Vec x, Vec y) { return _mm512_cmp_ps_mask(x, y, how); }
inline Vec where(Mask here, Vec x, Vec y) { return _mm512_mask_blend_ps(here, y, x); }
inline Vec greater(Vec x, Vec y) { return _mm512_max_ps(x, y); }  // y where one of them is no number
inline Vec inverse(Vec x) {  // to the last bit or the one before
  const __m512 about = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(about, _mm512_fnmadd_ps(about, x, _mm512_set1_ps(2.0f)));
}
inline Vec scaled(Vec x, Vec whole) { return _mm512_scalef_ps(x, whole); }  // x 2^whole
#else
using Mask = __m256;
template <int how> Mask compare(Vec x, Vec y) { return _mm256_cmp_ps(x, y, how); }
inline Vec where(Mask here, Vec x, Vec y) { return _mm256_blendv_ps(y, x, here); }
inline Vec greater(Vec x, Vec y) { return _mm256_max_ps(x, y); }
inline Vec inverse(Vec x) { return Vec(1.0f) / x; }
inline Vec scaled(Vec x, Vec whole) {  // by the exponent's bits; 2^128 is infinite, as it should be
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_min_ps(whole, _mm256_set1_ps(128.0f))), _mm256_set1_epi32(127));
  return x * Vec(_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
#endif

// 2^x to a relative 2e-7; 0 below 2^-125, where a number that is no longer normal would cost an assist of the processor.
inline Vec power(Vec x) {
  const Vec lowest(-125.0f), y = greater(x, lowest), whole = y.round(), part = y - whole;
  Vec sum(0.00132764655f);
  for (float c : {0.00967554096f, 0.0555071346f, 0.240221202f, 0.693146944f, 1.00000012f}) sum = at::vec::fmadd(sum, part, Vec(c));
  return where(compare<_CMP_GT_OQ>(x, lowest), scaled(sum, whole), Vec(0.0f));
}

// Memory of a thread, at a cache line's start.
template <typename T> class Buffer {
  T* data;

 public:
  explicit Buffer(int64_t n) : data(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)))) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data, std::align_val_t(64)); }
  operator T*() const { return data; }
};

// (rows, columns) → (rows / ROWS, columns) words.
template <typename T> void pairs(const T* x, int64_t stride, float* words, int64_t rows, int64_t columns) {
  if constexpr (ROWS<T> == 1) {
    for (int64_t i = 0; i < rows; ++i) std::memcpy(words + i * columns, x + i * stride, columns * sizeof(float));
  } else {
    auto out = reinterpret_cast<uint32_t*>(words);
    for (int64_t i = 0; i < rows; i += 2) {
      auto low = reinterpret_cast<const uint16_t*>(x + i * stride), high = low + stride;
      for (int64_t j = 0; j < columns; ++j) out[i / 2 * columns + j] = low[j] | uint32_t(high[j]) << 16;
    }
  }
}

// (rows, columns) words → (columns, rows) words; rows of the outcome begin `to` words after each other, by default one after the other.
inline void turn(const float* x, int64_t stride, float* out, int64_t rows, int64_t columns, int64_t to = 0) {
  constexpr int64_t EDGE = Vec::size();
  if (!to) to = rows;
  for (int64_t i = 0; i < rows; i += EDGE)
    for (int64_t j = 0; j < columns; j += EDGE) {
      const int64_t m = std::min(EDGE, rows - i), n = std::min(EDGE, columns - j);
      const float* from = x + i * stride + j;
#ifndef CPU_CAPABILITY_AVX512
      if (m == EDGE && n == EDGE) {
        at::vec::transpose_mxn<float, EDGE, EDGE>(from, stride, out + j * to + i, to);
        continue;
      }
#endif
      at::vec::transpose_mxn<float>(from, stride, out + j * to + i, to, m, n);
    }
}

// run(part, first row, end) of PARTS runs of rows: who sums over rows sums each part, then the parts in order, so threads do not change the bits.
constexpr int64_t PARTS = 64;
template <typename F> void parts(int64_t N, F&& run) {
  at::parallel_for(0, PARTS, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) run(part, N * part / PARTS, N * (part + 1) / PARTS);
  });
}

template <typename F> void dispatch(const Tensor& q, F&& run) {
  TORCH_CHECK(q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16, "fp32 or bf16 only");
  q.scalar_type() == at::kFloat ? run(float{}) : run(BFloat16{});
}

}  // namespace
