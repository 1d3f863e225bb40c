// Which kernels there are, and which this processor can run. Nothing here needs more than the
// architecture's least processor.

#include <initializer_list>

#include "attention.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace molkv {
namespace {

#if defined(__x86_64__)

struct X86Features {
  bool avx2 = false;
  bool avx512 = false;
};

// The registers that the operating system saves and restores: an instruction set whose registers it
// does not save cannot be used, whatever the processor has.
uint64_t SavedRegisters() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

X86Features ReadX86Features() {
  constexpr uint64_t kAvxState = 0x6, kAvx512State = 0xe6;
  X86Features features;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  const bool has_xgetbv = c & bit_OSXSAVE;
  const bool has_fma_and_half = (c & bit_FMA) && (c & bit_F16C) && (c & bit_AVX);
  if (!has_xgetbv || !has_fma_and_half || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    return features;
  }
  const uint64_t saved = SavedRegisters();
  features.avx2 = (saved & kAvxState) == kAvxState && (b & bit_AVX2);
  features.avx512 = features.avx2 && (saved & kAvx512State) == kAvx512State && (b & bit_AVX512F) &&
                    (b & bit_AVX512BW) && (b & bit_AVX512VL) && (b & bit_AVX512DQ);
  return features;
}

const X86Features& GetX86Features() {
  static const X86Features features = ReadX86Features();
  return features;
}

#endif

}  // namespace

#if defined(__x86_64__)
bool ProcessorHasAvx2() { return GetX86Features().avx2; }
bool ProcessorHasAvx512() { return GetX86Features().avx512; }
#else
bool ProcessorHasAvx2() { return false; }
bool ProcessorHasAvx512() { return false; }
#endif

bool ProcessorHasDotprod() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotprod = 1ul << 20;  // HWCAP_ASIMDDP, which old headers lack
  return (getauxval(AT_HWCAP) & kDotprod) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#else
  return false;
#endif
}

const AttentionKernel* FindAttentionKernel(uint32_t kernel) {
  switch (kernel) {
    case MOLKV_KERNEL_BEST:
      for (uint32_t better :
           {MOLKV_KERNEL_AVX512, MOLKV_KERNEL_AVX2, MOLKV_KERNEL_NEON_DOTPROD, MOLKV_KERNEL_NEON}) {
        if (const AttentionKernel* found = FindAttentionKernel(better)) return found;
      }
      return &kAttentionScalar;
    case MOLKV_KERNEL_SCALAR:
      return &kAttentionScalar;
#if defined(__x86_64__)
    case MOLKV_KERNEL_AVX2:
      return kAttentionAvx2.supported() ? &kAttentionAvx2 : nullptr;
    case MOLKV_KERNEL_AVX512:
      return kAttentionAvx512.supported() ? &kAttentionAvx512 : nullptr;
#elif defined(__aarch64__)
    case MOLKV_KERNEL_NEON:
      return kAttentionNeon.supported() ? &kAttentionNeon : nullptr;
    case MOLKV_KERNEL_NEON_DOTPROD:
      return kAttentionNeonDotprod.supported() ? &kAttentionNeonDotprod : nullptr;
#endif
    default:
      return nullptr;
  }
}

}  // namespace molkv
