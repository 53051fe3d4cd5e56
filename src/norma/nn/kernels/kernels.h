// What the kernels share: vectors of fp32 in registers, whatever is in memory (fp32 or bf16).
#pragma once

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

namespace {

using at::BFloat16;
using at::Tensor;
using Vec = at::vec::Vectorized<float>;

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
#ifdef __AVX512BF16__
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x));
#else
  at::vec::convert_from_float<BFloat16>(x, y).store(to);
#endif
}

inline float total(Vec x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

template <typename F> void dispatch(const Tensor& q, F&& run) {
  TORCH_CHECK(q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16, "fp32 or bf16 only");
  q.scalar_type() == at::kFloat ? run(float{}) : run(BFloat16{});
}

}  // namespace
