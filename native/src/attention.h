// Expert attention inside the library: what the dispatcher hands to a kernel.
//
// A kernel computes one tile: some consecutive tokens and some consecutive heads. Tiles share
// nothing, so a result depends neither on the number of threads nor on how tokens are cut into
// calls.

#ifndef MOLKV_SRC_ATTENTION_H_
#define MOLKV_SRC_ATTENTION_H_

#include <stddef.h>
#include <stdint.h>

#include "molkv/molkv.h"

namespace molkv {

// Tokens whose windows overlap so far that one conversion of a row serves all of them.
constexpr uint32_t kTokenBlock = 4;

// Floats that a kernel may read or write at once; its part of the scratch memory is padded to it.
constexpr size_t kScratchPadding = 16;

// A checked call, with what all its tiles share.
struct AttentionCall {
  const molkv_attention_inputs* inputs;
  uint32_t first_row;  // rows before it are padding
  uint32_t ages;       // ages that a row of this call can have: the smaller of W and S
  const float* bias;   // [G, ages, N], the oldest age first: the order of rows in memory
  float* output;       // [T, d]
};

// Tokens [token, token + tokens), at most kTokenBlock, and heads [head, head + heads).
struct AttentionTile {
  uint32_t token;
  uint32_t tokens;
  uint32_t head;
  uint32_t heads;
};

// Functions here are static, so that each kernel's file keeps the one that was compiled for its own
// instructions; the linker would merge inline ones.

// Rows of a token's window: first to its own, which is the last one.
struct AttendedRows {
  uint32_t first;
  uint32_t own;
};

static inline AttendedRows RowsOf(const AttentionCall& call, uint32_t token) {
  const uint32_t own = call.inputs->rows - call.inputs->tokens + token;
  const uint32_t oldest = own + 1 < call.ages ? 0 : own + 1 - call.ages;
  return {oldest < call.first_row ? call.first_row : oldest, own};
}

// Floats of scratch memory that one tile needs.
struct TileScratch {
  size_t query;   // a scaled query of one token and head, padded, and as much again
  size_t scores;  // of one token and head, padded
  size_t total;
};

// A pair is one expert of one row. Rows, and so pairs, lie one behind the other in every plane.
static inline TileScratch TileScratchOf(const AttentionCall& call) {
  const molkv_attention_inputs& inputs = *call.inputs;
  const size_t rows = static_cast<size_t>(call.ages) + kTokenBlock - 1;
  const size_t pairs = (rows < inputs.rows ? rows : inputs.rows) * inputs.experts;
  TileScratch scratch;
  scratch.query = 2 * ((inputs.key_size + kScratchPadding - 1) / kScratchPadding * kScratchPadding);
  // One vector more than the pairs: kernels round up from any pair, not only from the first.
  scratch.scores = (pairs / kScratchPadding + 2) * kScratchPadding;
  const size_t tokens = inputs.tokens < kTokenBlock ? inputs.tokens : kTokenBlock;
  scratch.total = tokens * inputs.heads * (scratch.query + scratch.scores);
  return scratch;
}

// One implementation of the op. `attend` is null where the library was built without it.
struct AttentionKernel {
  const char* name;
  // Whether this processor and operating system can run it.
  bool (*supported)();
  // `scratch` is aligned to 64 bytes and holds TileScratchOf(call).total floats.
  void (*attend)(const AttentionCall& call, const AttentionTile& tile, float* scratch);
  // results[i] = e to the power of values[i], as the kernel's softmax takes it; for the tests.
  void (*exponentials)(const float* values, float* results, size_t count);
};

// Each is defined in its own file, compiled for its own instructions.
extern const AttentionKernel kAttentionScalar;
extern const AttentionKernel kAttentionAvx2;
extern const AttentionKernel kAttentionAvx512;
extern const AttentionKernel kAttentionNeon;
extern const AttentionKernel kAttentionNeonDotprod;

// The kernel, or null if there is none for this build and processor.
const AttentionKernel* FindAttentionKernel(uint32_t kernel);

// What the processor has; false on another architecture.
bool ProcessorHasAvx2();
bool ProcessorHasAvx512();
bool ProcessorHasDotprod();

}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_H_
