// Expert attention behind the C ABI: checks, choice of kernel, scratch memory, work for threads.

#include "attention.h"

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>

#include "error.h"

namespace molkv {
namespace {

// Calls with less work than this (multiplications) take about as long as waking another thread.
constexpr uint64_t kParallelWork = 1u << 17;

// Most parts that a call is cut into for threads; each has scratch memory of its own.
constexpr size_t kMostParts = 16;

constexpr size_t kScratchAlignment = 64;

[[noreturn]] void Refuse(const std::string& message) {
  throw Error(MOLKV_INVALID_ARGUMENT, "molkv_attention: " + message);
}

void CheckNotNull(const void* pointer, const char* name) {
  if (pointer == nullptr) Refuse(std::string(name) + " is NULL (pass its memory)");
}

void CheckSize(uint32_t size, const char* name) {
  if (size == 0) Refuse(std::string(name) + " is 0 (it must be at least 1)");
}

void CheckKeyType(uint32_t type) {
  if (type == MOLKV_INT8 || type == MOLKV_FLOAT16) return;
  const std::string message =
      "key_dtype is " + std::to_string(type) + " (pass MOLKV_INT8 or MOLKV_FLOAT16)";
  if (type == MOLKV_INT4) throw Error(MOLKV_UNSUPPORTED, "molkv_attention: " + message);
  Refuse(message);
}

void CheckValueType(const molkv_attention_inputs& inputs) {
  if (inputs.value_dtype == MOLKV_INT8 || inputs.value_dtype == MOLKV_FLOAT16) return;
  if (inputs.value_dtype != MOLKV_INT4) {
    Refuse("value_dtype is " + std::to_string(inputs.value_dtype) +
           " (pass MOLKV_INT8, MOLKV_INT4 or MOLKV_FLOAT16)");
  }
  const uint32_t part = inputs.value_size / inputs.heads;
  if (part % MOLKV_INT4_GROUP != 0) {
    Refuse("value_size / heads is " + std::to_string(part) + " (for MOLKV_INT4 it must be a " +
           "multiple of " + std::to_string(MOLKV_INT4_GROUP) + ")");
  }
  CheckNotNull(inputs.value_scales, "value_scales");
}

// A product of sizes must leave room for the size of an element and for rounding up.
void CheckProduct(std::initializer_list<uint32_t> sizes, const char* name) {
  constexpr uint64_t kMost = static_cast<uint64_t>(PTRDIFF_MAX) / 64;
  uint64_t product = 1;
  for (uint32_t size : sizes) {
    if (product > kMost / size) {
      Refuse(std::string(name) + " has more elements than memory can hold (check the sizes)");
    }
    product *= size;
  }
}

void CheckSizes(const molkv_attention_inputs& inputs) {
  CheckSize(inputs.tokens, "tokens");
  CheckSize(inputs.rows, "rows");
  CheckSize(inputs.experts, "experts");
  CheckSize(inputs.heads, "heads");
  CheckSize(inputs.key_size, "key_size");
  CheckSize(inputs.value_size, "value_size");
  CheckSize(inputs.window, "window");
  if (inputs.value_size % inputs.heads != 0) {
    Refuse("value_size is " + std::to_string(inputs.value_size) + ", heads is " +
           std::to_string(inputs.heads) + " (it must be a multiple of heads)");
  }
  if (inputs.tokens > inputs.rows) {
    Refuse("tokens is " + std::to_string(inputs.tokens) + ", rows is " +
           std::to_string(inputs.rows) + " (the tokens' own rows must be among the rows)");
  }
  if (inputs.start > static_cast<int64_t>(inputs.rows - inputs.tokens)) {
    Refuse("start is " + std::to_string(inputs.start) + " (it is at most rows - tokens, " +
           std::to_string(inputs.rows - inputs.tokens) + ": a token's own row is no padding)");
  }
  // An int8 times a limb of a query is less than 2^14: sums in 32 bits must have room for all.
  if (inputs.key_size > 1u << 16) {
    Refuse("key_size is " + std::to_string(inputs.key_size) + " (it is at most 65536)");
  }
  CheckProduct({inputs.tokens, inputs.heads, inputs.key_size}, "query");
  CheckProduct({inputs.rows, inputs.experts, inputs.heads, inputs.key_size}, "keys");
  CheckProduct({inputs.rows, inputs.experts, inputs.value_size}, "values");
  CheckProduct({inputs.heads, inputs.experts, inputs.window}, "age_bias");
  CheckProduct({kTokenBlock + 1, inputs.rows, inputs.experts, inputs.heads}, "scores");
}

void CheckInputs(const molkv_attention_inputs* inputs) {
  CheckNotNull(inputs, "inputs");
  if (inputs->struct_size < sizeof(molkv_attention_inputs)) {
    Refuse("struct_size is " + std::to_string(inputs->struct_size) +
           " (set it to sizeof(molkv_attention_inputs), " +
           std::to_string(sizeof(molkv_attention_inputs)) + ")");
  }
  CheckSizes(*inputs);
  CheckKeyType(inputs->key_dtype);
  CheckValueType(*inputs);
  CheckNotNull(inputs->query, "query");
  CheckNotNull(inputs->keys, "keys");
  CheckNotNull(inputs->values, "values");
  CheckNotNull(inputs->age_bias, "age_bias");
}

const AttentionKernel& ChooseKernel(uint32_t kernel) {
  const AttentionKernel* found = FindAttentionKernel(kernel);
  if (found == nullptr) {
    throw Error(MOLKV_UNSUPPORTED, "molkv_attention: this build and processor have no kernel " +
                                       std::to_string(kernel) + " (pass MOLKV_KERNEL_BEST)");
  }
  return *found;
}

AttentionCall MakeCall(const molkv_attention_inputs& inputs) {
  AttentionCall call = {};
  call.inputs = &inputs;
  call.first_row = inputs.start > 0 ? static_cast<uint32_t>(inputs.start) : 0;
  call.ages = inputs.window < inputs.rows ? inputs.window : inputs.rows;
  return call;
}

size_t BiasSize(const AttentionCall& call) {
  const size_t size = static_cast<size_t>(call.inputs->heads) * call.ages * call.inputs->experts;
  return (size + kScratchPadding - 1) / kScratchPadding * kScratchPadding;
}

// Turns the biases [G, N, W] into the order of rows in memory, so that kernels read them as they
// read scales.
void ReorderBias(const AttentionCall& call, float* bias) {
  const molkv_attention_inputs& inputs = *call.inputs;
  for (uint32_t head = 0; head < inputs.heads; ++head) {
    const float* of_head = inputs.age_bias + size_t{head} * inputs.experts * inputs.window;
    for (uint32_t age = call.ages; age-- > 0;) {
      for (uint32_t expert = 0; expert < inputs.experts; ++expert) {
        *bias++ = of_head[size_t{expert} * inputs.window + age];
      }
    }
  }
}

// How a call is cut: units of one token block and some heads, and parts of consecutive units.
struct Plan {
  size_t units;
  uint32_t heads_per_unit;
  size_t parts;
};

Plan MakePlan(const AttentionCall& call) {
  const molkv_attention_inputs& inputs = *call.inputs;
  const size_t blocks = (size_t{inputs.tokens} + kTokenBlock - 1) / kTokenBlock;
  const uint64_t width = uint64_t{inputs.heads} * inputs.key_size + inputs.value_size;
  // In floating point, because only the order of magnitude matters and it cannot overflow.
  const double work = 1.0 * inputs.tokens * call.ages * inputs.experts * width;
  if (work < kParallelWork) return {blocks, inputs.heads, 1};
  // A few blocks are cut by head as well: heads share no sums, so results stay the same.
  const bool by_head = blocks < kMostParts;
  const size_t units = by_head ? blocks * inputs.heads : blocks;
  return {units, by_head ? 1 : inputs.heads, units < kMostParts ? units : kMostParts};
}

struct Work {
  const AttentionCall& call;
  const AttentionKernel& kernel;
  const Plan& plan;
  float* scratch;
  size_t scratch_size;  // of a part
};

void RunUnits(const Work& work, size_t first, size_t last, float* scratch) {
  const molkv_attention_inputs& inputs = *work.call.inputs;
  const size_t groups = inputs.heads / work.plan.heads_per_unit;
  for (size_t unit = first; unit < last; ++unit) {
    AttentionTile tile;
    tile.token = static_cast<uint32_t>(unit / groups * kTokenBlock);
    const uint32_t left = inputs.tokens - tile.token;
    tile.tokens = left < kTokenBlock ? left : kTokenBlock;
    tile.heads = work.plan.heads_per_unit;
    tile.head = static_cast<uint32_t>(unit % groups) * tile.heads;
    work.kernel.attend(work.call, tile, scratch);
  }
}

void RunParts(void* context, size_t first, size_t last) {
  const Work& work = *static_cast<const Work*>(context);
  for (size_t part = first; part < last; ++part) {
    RunUnits(work, part * work.plan.units / work.plan.parts,
             (part + 1) * work.plan.units / work.plan.parts,
             work.scratch + part * work.scratch_size);
  }
}

size_t PartScratch(const AttentionCall& call) {
  return (TileScratchOf(call).total + kScratchPadding - 1) / kScratchPadding * kScratchPadding;
}

size_t ScratchBytes(const AttentionCall& call) {
  const size_t floats = BiasSize(call) + PartScratch(call) * MakePlan(call).parts;
  return floats * sizeof(float) + kScratchAlignment;
}

void Attend(const molkv_attention_inputs& inputs, float* output, void* scratch,
            molkv_parallel_for parallel, void* pool) {
  const AttentionKernel& kernel = ChooseKernel(inputs.kernel);
  AttentionCall call = MakeCall(inputs);
  Plan plan = MakePlan(call);
  std::unique_ptr<unsigned char[]> allocated;
  if (scratch == nullptr) {
    allocated.reset(new unsigned char[ScratchBytes(call)]);
    scratch = allocated.get();
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(scratch);
  const size_t misaligned = address % kScratchAlignment;
  unsigned char* aligned =
      static_cast<unsigned char*>(scratch) + (misaligned ? kScratchAlignment - misaligned : 0);
  float* bias = reinterpret_cast<float*>(aligned);
  ReorderBias(call, bias);
  call.bias = bias;
  call.output = output;
  if (parallel == nullptr || plan.parts == 1) {
    // Heads together read memory in its order.
    plan.units = (size_t{inputs.tokens} + kTokenBlock - 1) / kTokenBlock;
    plan.heads_per_unit = inputs.heads;
    plan.parts = 1;
  }
  Work work = {call, kernel, plan, bias + BiasSize(call), PartScratch(call)};
  if (plan.parts == 1) {
    RunParts(&work, 0, 1);
  } else {
    parallel(pool, plan.parts, RunParts, &work);
  }
}

}  // namespace
}  // namespace molkv

extern "C" {

int molkv_kernel_available(molkv_kernel kernel) {
  return molkv::FindAttentionKernel(kernel) != nullptr;
}

const char* molkv_kernel_name(molkv_kernel kernel) {
  switch (kernel) {
    case MOLKV_KERNEL_BEST:
      return molkv::FindAttentionKernel(MOLKV_KERNEL_BEST)->name;
    case MOLKV_KERNEL_SCALAR:
      return "scalar";
    case MOLKV_KERNEL_AVX2:
      return "avx2";
    case MOLKV_KERNEL_AVX512:
      return "avx512";
    case MOLKV_KERNEL_NEON:
      return "neon";
    case MOLKV_KERNEL_NEON_DOTPROD:
      return "neon-dotprod";
  }
  return "unknown";
}

size_t molkv_attention_scratch_bytes(const molkv_attention_inputs* inputs) {
  try {
    molkv::CheckInputs(inputs);
    molkv::ChooseKernel(inputs->kernel);
    return molkv::ScratchBytes(molkv::MakeCall(*inputs));
  } catch (const std::exception&) {
    return 0;
  }
}

molkv_status molkv_attention(const molkv_attention_inputs* inputs, float* output, void* scratch,
                             molkv_parallel_for parallel, void* pool, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::CheckInputs(inputs);
    molkv::CheckNotNull(output, "output");
    molkv::Attend(*inputs, output, scratch, parallel, pool);
  });
}

}  // extern "C"
