// The gradient of a linear layer's weight and bias on a CPU in bf16, from many tokens, summed and given in fp32.
//
//     dW = dY^T X        db = column sums of dY
//
// PyTorch multiplies a transposed left operand at a third of the speed of a plain one, and sums columns as slowly. Here dW is cut into
// tiles that stay in the cache while CHUNK tokens at a time are laid out as oneDNN's product wants them: its right operand X with two
// rows side by side, a word for each pair (pairs), its left one dY^T as such words transposed (turn). dY is summed while it is at hand.
//
// A number of dW is a sum over chunks in order, whatever tile it is in: the bits depend on the threads neither in number nor in order.
//
// Letters: N tokens, O features out, I features in.

#include "kernels.h"

#include <ATen/native/CPUBlas.h>

namespace {

constexpr int64_t CHUNK = 512;  // tokens of a product. Measured: 256 writes dW too often, 1024 leaves the cache
constexpr int64_t EDGE = 384;   // rows and columns of a tile; halved while there is too little work for the threads
constexpr int64_t LEAST = 96;   // and not below this
constexpr int64_t STEP = 32;    // tokens laid out at a time: 16 words

// (rows, columns) bf16 → (STEP / 2, columns) words, zeros after the last row.
void words_of(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns, BFloat16* last, float* words) {
  if (rows < STEP) {
    std::memset(static_cast<void*>(last), 0, STEP * columns * sizeof(BFloat16));
    for (int64_t i = 0; i < rows; ++i) std::memcpy(static_cast<void*>(last + i * columns), x + i * stride, columns * sizeof(BFloat16));
    x = last, stride = columns;
  }
  pairs(x, stride, words, STEP, columns);
}

// sums += the columns of x
void add_columns(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns, float* sums) {
  int64_t j = 0;
  for (; j + Vec::size() <= columns; j += Vec::size()) {
    Vec sum(0.0f);
    for (int64_t i = 0; i < rows; ++i) sum = sum + widen(x + i * stride + j);
    (Vec::loadu(sums + j) + sum).store(sums + j);
  }
  for (; j < columns; ++j) {
    float sum = 0.0f;
    for (int64_t i = 0; i < rows; ++i) sum += static_cast<float>(x[i * stride + j]);
    sums[j] += sum;
  }
}

// to (O, I) = grad^T x, or added to it; sums (O,), where wanted, are zeros that the columns of grad are added to.
void multiply(const Tensor& to, float* sums, const Tensor& grad, const Tensor& x, bool add) {
  const int64_t N = grad.size(0), O = grad.size(1), I = x.size(1);
  const BFloat16 *g = grad.data_ptr<BFloat16>(), *h = x.data_ptr<BFloat16>();
  float* out = to.data_ptr<float>();
  int64_t edge = EDGE;
  const auto cut = [&](int64_t width) { return (width + edge - 1) / edge; };
  while (edge > LEAST && cut(O) * cut(I) < at::get_num_threads()) edge /= 2;
  at::parallel_for(0, cut(O) * cut(I), 1, [&](int64_t begin, int64_t end) {
    Buffer<BFloat16> left(edge * CHUNK), last(STEP * edge);
    Buffer<float> right(edge * CHUNK / 2), words(STEP / 2 * edge);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t o = tile / cut(I) * edge, i = tile % cut(I) * edge, height = std::min(edge, O - o), width = std::min(edge, I - i);
      for (int64_t n = 0; n < N; n += CHUNK) {
        const int64_t K = (std::min(CHUNK, N - n) + STEP - 1) / STEP * STEP;
        for (int64_t k = 0; k < K; k += STEP) {
          const int64_t rows = std::min(STEP, N - n - k);
          const BFloat16* from = g + (n + k) * O + o;
          words_of(from, O, rows, height, last, words);
          if (sums && i == 0) add_columns(from, O, rows, height, sums + o);
          turn(words, height, reinterpret_cast<float*>(left + k), STEP / 2, height, K / 2);
          words_of(h + (n + k) * I + i, I, rows, width, last, right + k / 2 * width);
        }
        at::native::cpublas::brgemm(height, width, K, K, width, I, add || n > 0, left, reinterpret_cast<BFloat16*>(right.operator float*()), out + o * I + i, true);
      }
    }
    at::native::cpublas::brgemm_release(true);
  });
}

void check(const Tensor& grad, const Tensor& x) {
  TORCH_CHECK(grad.dim() == 2 && x.dim() == 2 && grad.size(0) == x.size(0) && x.size(0) > 0, "tokens of a gradient and of what was read, in rows");
  TORCH_CHECK(grad.scalar_type() == at::kBFloat16 && x.scalar_type() == at::kBFloat16, "bf16 only");
}

std::tuple<Tensor, Tensor> weight_gradient(const Tensor& grad, const Tensor& x, bool sum) {
  check(grad, x);
  const auto single = grad.options().dtype(at::kFloat);
  Tensor to = at::empty({grad.size(1), x.size(1)}, single), sums = at::zeros({sum ? grad.size(1) : 0}, single);
  multiply(to, sum ? sums.data_ptr<float>() : nullptr, grad.contiguous(), x.contiguous(), false);
  return {to, sums};
}

void add_weight_gradient(const Tensor& to, const Tensor& grad, const Tensor& x) {
  check(grad, x);
  TORCH_CHECK(to.is_contiguous() && to.scalar_type() == at::kFloat && to.dim() == 2 && to.size(0) == grad.size(1) && to.size(1) == x.size(1), "fp32, (out, in)");
  multiply(to, nullptr, grad.contiguous(), x.contiguous(), true);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(norma_cpu, m) {
  m.def("weight_gradient(Tensor grad, Tensor x, bool sum) -> (Tensor, Tensor)");
  m.def("add_weight_gradient(Tensor(a!) to, Tensor grad, Tensor x) -> ()");
}
TORCH_LIBRARY_IMPL(norma_cpu, CPU, m) {
  m.impl("weight_gradient", &weight_gradient);
  m.impl("add_weight_gradient", &add_weight_gradient);
}
