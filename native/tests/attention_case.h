// Inputs of expert attention for tests: random numbers in memory that ends at a page nobody may
// touch, so that a read or write behind an array ends the test.

#ifndef MOLKV_TESTS_ATTENTION_CASE_H_
#define MOLKV_TESTS_ATTENTION_CASE_H_

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "molkv/molkv.h"

namespace molkv::testing {

// Memory of exactly `size` bytes in front of a page without access.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t size) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (size + page - 1) / page * page + page;
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    if (mprotect(memory_ + mapped_ - page, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = memory_ + mapped_ - page - size;
  }
  ~GuardedMemory() { munmap(memory_, mapped_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  template <typename Element>
  Element* As() {
    return reinterpret_cast<Element*>(data_);
  }

 private:
  size_t mapped_;
  char* memory_;
  char* data_;
};

struct Shape {
  uint32_t tokens, rows, experts, heads, key_size, value_size, window;
  int64_t start = 0;
  uint32_t key_dtype = MOLKV_INT8;
  uint32_t value_dtype = MOLKV_INT8;
  bool key_scales = true;
  bool value_scales = true;
};

inline std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
  return stream << "T " << shape.tokens << ", S " << shape.rows << ", N " << shape.experts << ", G "
                << shape.heads << ", dk " << shape.key_size << ", d " << shape.value_size << ", W "
                << shape.window << ", start " << shape.start << ", types " << shape.key_dtype << ' '
                << shape.value_dtype << ", scales " << shape.key_scales << shape.value_scales;
}

// A half from a float that it can hold exactly: a small multiple of 1/64.
inline uint16_t HalfOf(float value) {
  if (value == 0) return 0;
  int exponent;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // from 0.5 to 1
  const uint32_t mantissa = static_cast<uint32_t>(fraction * 2048) - 1024;
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | mantissa);
}

class Case {
 public:
  explicit Case(const Shape& shape, uint32_t seed = 1) : shape_(shape), random_(seed) {
    inputs_.struct_size = sizeof(inputs_);
    inputs_.tokens = shape.tokens;
    inputs_.rows = shape.rows;
    inputs_.experts = shape.experts;
    inputs_.heads = shape.heads;
    inputs_.key_size = shape.key_size;
    inputs_.value_size = shape.value_size;
    inputs_.window = shape.window;
    inputs_.start = shape.start;
    inputs_.key_dtype = shape.key_dtype;
    inputs_.value_dtype = shape.value_dtype;
    const size_t pairs = size_t{shape.rows} * shape.experts;
    const size_t key_width = size_t{shape.heads} * shape.key_size;
    // Scores of about -5 to 5, whatever the size of the key and of its numbers.
    const float norm = shape.key_scales || shape.key_dtype == MOLKV_FLOAT16 ? 1.0f : 0.013f;
    inputs_.query = Floats(shape.tokens * key_width, -2 * norm, 2 * norm);
    inputs_.keys = Vectors(pairs * key_width, shape.key_dtype);
    inputs_.values = Vectors(pairs * shape.value_size, shape.value_dtype);
    const float key_scale = shape.key_dtype == MOLKV_INT8 ? 0.02f : 1.2f;
    if (shape.key_scales) inputs_.key_scales = Floats(pairs, key_scale / 4, key_scale);
    if (shape.value_dtype == MOLKV_INT4) {
      inputs_.value_scales = Vectors(pairs * shape.value_size / MOLKV_INT4_GROUP, MOLKV_FLOAT16);
    } else if (shape.value_scales) {
      inputs_.value_scales = Floats(pairs, 0.005f, 0.02f);
    }
    inputs_.age_bias = Floats(size_t{shape.heads} * shape.experts * shape.window, -2, 2);
  }

  molkv_attention_inputs& inputs() { return inputs_; }

  size_t output_size() const { return size_t{shape_.tokens} * shape_.value_size; }

  // The result; NaN everywhere if the call fails.
  std::vector<float> Run(uint32_t kernel, molkv_parallel_for parallel = nullptr,
                         void* pool = nullptr) {
    GuardedMemory output(output_size() * sizeof(float));
    std::fill_n(output.As<float>(), output_size(), NAN);
    inputs_.kernel = kernel;
    molkv_error error;
    molkv_attention(&inputs_, output.As<float>(), nullptr, parallel, pool, &error);
    return std::vector<float>(output.As<float>(), output.As<float>() + output_size());
  }

 private:
  template <typename Element>
  Element* Allocate(size_t count) {
    memory_.push_back(std::make_unique<GuardedMemory>(count * sizeof(Element)));
    return memory_.back()->As<Element>();
  }

  float* Floats(size_t count, float least, float most) {
    std::uniform_real_distribution<float> distribution(least, most);
    float* numbers = Allocate<float>(count);
    for (size_t i = 0; i < count; ++i) numbers[i] = distribution(random_);
    return numbers;
  }

  void* Vectors(size_t count, uint32_t dtype) {
    std::uniform_int_distribution<int> distribution(-128, 127);
    if (dtype == MOLKV_INT8 || dtype == MOLKV_INT4) {
      if (dtype == MOLKV_INT4) count /= 2;  // two in a byte, of any bits
      int8_t* numbers = Allocate<int8_t>(count);
      for (size_t i = 0; i < count; ++i) numbers[i] = static_cast<int8_t>(distribution(random_));
      return numbers;
    }
    uint16_t* numbers = Allocate<uint16_t>(count);
    for (size_t i = 0; i < count; ++i) {
      numbers[i] = HalfOf(static_cast<float>(distribution(random_)) / 64);
    }
    return numbers;
  }

  Shape shape_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<GuardedMemory>> memory_;
  molkv_attention_inputs inputs_ = {};
};

// The largest difference, relative to the largest expected number; NaN counts as infinite.
inline float Difference(const std::vector<float>& results, const std::vector<float>& expected) {
  float largest = 0, difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    const float here = std::fabs(results[i] - expected[i]);
    if (!(here <= difference)) difference = std::isnan(here) ? INFINITY : here;
  }
  return difference > 0 ? difference / largest : 0;
}

inline std::vector<molkv_kernel> AvailableKernels() {
  std::vector<molkv_kernel> kernels;
  for (int kernel = MOLKV_KERNEL_SCALAR; kernel <= MOLKV_KERNEL_NEON_DOTPROD; ++kernel) {
    if (molkv_kernel_available(static_cast<molkv_kernel>(kernel))) {
      kernels.push_back(static_cast<molkv_kernel>(kernel));
    }
  }
  return kernels;
}

}  // namespace molkv::testing

#endif  // MOLKV_TESTS_ATTENTION_CASE_H_
