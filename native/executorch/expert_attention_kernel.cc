// molkv::expert_attention.out for ExecuTorch (docs/executorch.md, "The kernel"): libmolkv's kernel
// on ExecuTorch's threads. Loading the library, or linking all of it, registers the operator.

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "molkv/molkv.h"

namespace molkv::executorch_kernel {
namespace {

using ::executorch::aten::ScalarType;
using ::executorch::aten::Tensor;
using ::executorch::runtime::Error;
using ::executorch::runtime::KernelRuntimeContext;

bool IsContiguous(const Tensor& tensor) {
  return ::executorch::runtime::is_contiguous_dim_order(tensor.dim_order().data(),
                                                        tensor.dim_order().size());
}

// The shape is the expected one; every size fits the 32 bits of molkv_attention_inputs.
bool HasShape(const Tensor& tensor, std::initializer_list<int64_t> expected) {
  if (tensor.dim() != static_cast<ssize_t>(expected.size()) || !IsContiguous(tensor)) return false;
  ssize_t axis = 0;
  for (const int64_t size : expected) {
    if (tensor.size(axis++) != size || size < 1 || size > INT32_MAX) return false;
  }
  return true;
}

bool HasShape(const std::optional<Tensor>& scales, ScalarType type,
              std::initializer_list<int64_t> expected) {
  return !scales.has_value() || (scales->scalar_type() == type && HasShape(*scales, expected));
}

// One scale for a whole vector, or for each group of int4.
bool HasValueScaleShape(const std::optional<Tensor>& scales, int64_t rows, int64_t experts,
                        int64_t groups) {
  return groups == 0 ? HasShape(scales, ScalarType::Float, {rows, experts})
                     : HasShape(scales, ScalarType::Half, {rows, experts, groups});
}

uint32_t DataType(const Tensor& tensor) {
  if (tensor.scalar_type() == ScalarType::Char) return MOLKV_INT8;
  if (tensor.scalar_type() == ScalarType::Byte) return MOLKV_INT4;
  return tensor.scalar_type() == ScalarType::Half ? MOLKV_FLOAT16 : MOLKV_NONE;
}

// A molkv_parallel_for on ExecuTorch's own threads, so that the two never compete for cores.
void ParallelFor(void*, size_t count, void (*work)(void*, size_t, size_t), void* context) {
  const bool ran = ::executorch::extension::parallel_for(
      0, static_cast<int64_t>(count), 1, [&](int64_t first, int64_t last) {
        work(context, static_cast<size_t>(first), static_cast<size_t>(last));
      });
  if (!ran) work(context, 0, count);
}

Tensor& ExpertAttention(KernelRuntimeContext& context, const Tensor& query, const Tensor& keys,
                        const std::optional<Tensor>& key_scales, const Tensor& values,
                        const std::optional<Tensor>& value_scales, const Tensor& age_bias,
                        const Tensor& start, Tensor& out) {
  const bool known =
      query.dim() == 3 && values.dim() == 3 && age_bias.dim() == 3 && IsContiguous(query) &&
      IsContiguous(values) && query.scalar_type() == ScalarType::Float &&
      age_bias.scalar_type() == ScalarType::Float && start.scalar_type() == ScalarType::Long;
  ET_KERNEL_CHECK_MSG(context, known, InvalidArgument, out,
                      "expert_attention: query, values and age_bias have 3 dimensions");
  const int64_t tokens = query.size(0), heads = query.size(1), key_size = query.size(2);
  const int64_t rows = values.size(0), experts = values.size(1);
  const bool packed = DataType(values) == MOLKV_INT4;  // two elements a byte
  const int64_t width = (packed ? 2 : 1) * values.size(2);
  const int64_t window = age_bias.size(2);
  const bool fits =
      HasShape(query, {tokens, heads, key_size}) &&
      HasShape(keys, {rows, experts, heads * key_size}) &&
      HasShape(key_scales, ScalarType::Float, {rows, experts}) &&
      HasShape(values, {rows, experts, values.size(2)}) &&
      HasValueScaleShape(value_scales, rows, experts, packed ? width / MOLKV_INT4_GROUP : 0) &&
      HasShape(age_bias, {heads, experts, window}) && HasShape(start, {1});
  ET_KERNEL_CHECK_MSG(context, fits, InvalidArgument, out,
                      "expert_attention: the inputs' shapes do not belong together");

  const Tensor::SizesType shape[] = {static_cast<Tensor::SizesType>(tokens),
                                     static_cast<Tensor::SizesType>(width)};
  const bool resized = ::executorch::runtime::resize_tensor(out, {shape, 2}) == Error::Ok;
  ET_KERNEL_CHECK_MSG(context, resized && out.scalar_type() == ScalarType::Float, InvalidArgument,
                      out, "expert_attention: out is not float32 [T, d]");

  molkv_attention_inputs inputs = {};
  inputs.struct_size = sizeof(inputs);
  inputs.kernel = MOLKV_KERNEL_BEST;
  inputs.tokens = static_cast<uint32_t>(tokens);
  inputs.rows = static_cast<uint32_t>(rows);
  inputs.experts = static_cast<uint32_t>(experts);
  inputs.heads = static_cast<uint32_t>(heads);
  inputs.key_size = static_cast<uint32_t>(key_size);
  inputs.value_size = static_cast<uint32_t>(width);
  inputs.window = static_cast<uint32_t>(window);
  inputs.key_dtype = DataType(keys);
  inputs.value_dtype = DataType(values);
  inputs.start = *start.const_data_ptr<int64_t>();
  inputs.query = query.const_data_ptr<float>();
  inputs.keys = keys.const_data_ptr();
  inputs.key_scales = key_scales.has_value() ? key_scales->const_data_ptr<float>() : nullptr;
  inputs.values = values.const_data_ptr();
  inputs.value_scales = value_scales.has_value() ? value_scales->const_data_ptr() : nullptr;
  inputs.age_bias = age_bias.const_data_ptr<float>();

  // Without memory of the runtime's, molkv_attention allocates.
  const auto scratch = context.allocate_temp(molkv_attention_scratch_bytes(&inputs), 64);
  molkv_error error = {};
  const molkv_status status =
      molkv_attention(&inputs, out.mutable_data_ptr<float>(), scratch.ok() ? *scratch : nullptr,
                      ParallelFor, nullptr, &error);
  ET_KERNEL_CHECK_MSG(context, status == MOLKV_OK, InvalidArgument, out, "%s", error.message);
  return out;
}

}  // namespace

EXECUTORCH_LIBRARY(molkv, "expert_attention.out", ExpertAttention);

}  // namespace molkv::executorch_kernel
