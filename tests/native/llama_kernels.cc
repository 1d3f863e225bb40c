// Plain forms of the two operators that ExecuTorch's LLM kernels bring to a program:
// llama::update_cache and llama::custom_sdpa, in float32. ExecuTorch's Python package has its own
// ones only in a library that needs libtorch, and libtorch for 64-bit ARM is not small enough for a
// test to fetch. Where both can be had, a test compares the two.

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace {

using ::executorch::aten::Tensor;
using ::executorch::runtime::KernelRuntimeContext;

// value [1, T, K, h] becomes rows start to start + T - 1 of cache [1, C, K, h].
Tensor& UpdateCache(KernelRuntimeContext& context, const Tensor& value, Tensor& cache,
                    const int64_t start, Tensor& out) {
  const bool fits = start >= 0 && start + value.size(1) <= cache.size(1) &&
                    value.size(2) == cache.size(2) && value.size(3) == cache.size(3);
  ET_KERNEL_CHECK_MSG(context, fits, InvalidArgument, out, "update_cache: rows do not fit");
  const int64_t row = cache.size(2) * cache.size(3);
  std::copy_n(value.const_data_ptr<float>(), value.numel(),
              cache.mutable_data_ptr<float>() + start * row);
  return out;
}

// One head's mix for one token: values[0..rows) weighted by softmax(query . keys / sqrt(h)).
// Consecutive rows of a head lie `stride` apart.
void Attend(const float* query, const float* keys, const float* values, int64_t rows,
            int64_t stride, int64_t size, float* out) {
  std::vector<double> weights(static_cast<size_t>(rows));
  double largest = -INFINITY, total = 0;
  for (int64_t r = 0; r < rows; ++r) {
    double score = 0;
    for (int64_t i = 0; i < size; ++i) score += double{query[i]} * keys[r * stride + i];
    weights[r] = score / std::sqrt(static_cast<double>(size));
    largest = std::max(largest, weights[r]);
  }
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) sum += weights[r] * values[r * stride + i];
    out[i] = static_cast<float>(sum / total);
  }
}

// query [1, T, H, h]; keys and values [1, C, K, h]; token t attends over rows 0 to start + t.
Tensor& CustomSdpa(KernelRuntimeContext& context, const Tensor& query, const Tensor& keys,
                   const Tensor& values, const int64_t start, const std::optional<Tensor>& mask,
                   const double dropout, const bool causal, const std::optional<double> scale,
                   Tensor& out) {
  const bool known = !mask.has_value() && dropout == 0 && causal && !scale.has_value();
  ET_KERNEL_CHECK_MSG(context, known, NotSupported, out, "custom_sdpa: only causal attention");
  const bool resized =
      ::executorch::runtime::resize_tensor(out, query.sizes()) == ::executorch::runtime::Error::Ok;
  ET_KERNEL_CHECK_MSG(context, resized, InvalidArgument, out, "custom_sdpa: out does not fit");
  const int64_t heads = query.size(2), size = query.size(3), shared = heads / keys.size(2);
  const int64_t stride = keys.size(2) * size;
  for (int64_t token = 0; token < query.size(1); ++token) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t place = (token * heads + head) * size, column = head / shared * size;
      Attend(query.const_data_ptr<float>() + place, keys.const_data_ptr<float>() + column,
             values.const_data_ptr<float>() + column, start + token + 1, stride, size,
             out.mutable_data_ptr<float>() + place);
    }
  }
  return out;
}

EXECUTORCH_LIBRARY(llama, "update_cache.out", UpdateCache);
EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", CustomSdpa);

}  // namespace
