// Expert attention with NEON, which every 64-bit ARM processor has.

#include "attention.h"

#if defined(__aarch64__)

#include "attention_neon.h"

namespace molkv {
namespace {

bool Supported() { return true; }

}  // namespace

const AttentionKernel kAttentionNeon = {"neon", Supported, Attend<Neon>, Exponentials<Neon>};

}  // namespace molkv

#endif  // defined(__aarch64__)
