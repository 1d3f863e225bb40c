// The sampler's functions of the C ABI.

#include <cstddef>
#include <cstdint>
#include <string>

#include "error.h"
#include "require_pointer.h"
#include "sampler.h"

namespace {

// Of molkv_sampling as its first version had it.
constexpr size_t kFirstStructSize = offsetof(molkv_sampling, seed) + sizeof(uint64_t);

}  // namespace

struct molkv_sampler {
  explicit molkv_sampler(const molkv_sampling& sampling) : sampler(sampling) {}

  molkv::Sampler sampler;
};

extern "C" molkv_status molkv_sampler_create(const molkv_sampling* sampling,
                                             molkv_sampler** sampler, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(sampling, "sampling");
    molkv::RequirePointer(sampler, "sampler");
    if (sampling->struct_size < kFirstStructSize) {
      throw molkv::Error(MOLKV_INVALID_ARGUMENT,
                         "sampling.struct_size is " + std::to_string(sampling->struct_size) +
                             ", and must be at least " + std::to_string(kFirstStructSize) +
                             " (set it to sizeof(molkv_sampling))");
    }
    *sampler = new molkv_sampler(*sampling);
  });
}

extern "C" void molkv_sampler_free(molkv_sampler* sampler) { delete sampler; }

extern "C" void molkv_sampler_reset(molkv_sampler* sampler) {
  if (sampler != nullptr) {
    sampler->sampler.Reset();
  }
}

extern "C" molkv_status molkv_sampler_sample(molkv_sampler* sampler, const float* logits,
                                             size_t vocabulary_size, int64_t* token_id,
                                             molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(sampler, "sampler");
    molkv::RequirePointer(logits, "logits");
    molkv::RequirePointer(token_id, "token_id");
    if (vocabulary_size == 0 || uint64_t{vocabulary_size} > UINT32_MAX) {
      throw molkv::Error(MOLKV_INVALID_ARGUMENT,
                         "vocabulary_size is " + std::to_string(vocabulary_size) +
                             ", and must lie between 1 and 4294967295 (pass the number of logits "
                             "of one position)");
    }
    *token_id = sampler->sampler.Sample(logits, vocabulary_size);
  });
}
