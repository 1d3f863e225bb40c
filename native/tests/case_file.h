// The files that tests in Python and these programs exchange: inputs of expert attention, and
// arrays.
//
// A case is eleven uint32 (the fields of Header), an int64 (start), then the arrays in the order of
// the op's inputs, those that are absent left out. All in the processor's order, without gaps.

#ifndef MOLKV_TESTS_CASE_FILE_H_
#define MOLKV_TESTS_CASE_FILE_H_

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv_test {

inline std::vector<char> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void WriteWholeFile(const std::string& path, const void* content, size_t size) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(content), static_cast<std::streamsize>(size));
  if (!file.flush()) throw std::runtime_error(path + " cannot be written");
}

class CaseFile {
 public:
  explicit CaseFile(const std::string& path) : content_(ReadWholeFile(path)) {
    struct Header {
      uint32_t tokens, rows, experts, heads, key_size, value_size, window;
      uint32_t key_dtype, value_dtype, has_key_scales, has_value_scales;
    };
    Header header;
    std::memcpy(&header, Take(sizeof(header)), sizeof(header));
    inputs_.struct_size = sizeof(inputs_);
    inputs_.tokens = header.tokens;
    inputs_.rows = header.rows;
    inputs_.experts = header.experts;
    inputs_.heads = header.heads;
    inputs_.key_size = header.key_size;
    inputs_.value_size = header.value_size;
    inputs_.window = header.window;
    inputs_.key_dtype = header.key_dtype;
    inputs_.value_dtype = header.value_dtype;
    std::memcpy(&inputs_.start, Take(sizeof(int64_t)), sizeof(int64_t));
    const size_t pairs = size_t{header.rows} * header.experts;
    const size_t key_width = size_t{header.heads} * header.key_size;
    const auto floats = [&](size_t count) {
      return reinterpret_cast<const float*>(Take(count * sizeof(float)));
    };
    const auto bytes = [](uint32_t dtype) { return dtype == MOLKV_INT8 ? size_t{1} : size_t{2}; };
    const bool packed = header.value_dtype == MOLKV_INT4;
    const size_t value_bytes =
        packed ? header.value_size / 2 : header.value_size * bytes(header.value_dtype);
    const size_t value_scale_bytes =
        packed ? header.value_size / MOLKV_INT4_GROUP * 2 : sizeof(float);
    inputs_.query = floats(header.tokens * key_width);
    inputs_.keys = Take(pairs * key_width * bytes(header.key_dtype));
    if (header.has_key_scales) inputs_.key_scales = floats(pairs);
    inputs_.values = Take(pairs * value_bytes);
    if (header.has_value_scales) inputs_.value_scales = Take(pairs * value_scale_bytes);
    inputs_.age_bias = floats(size_t{header.heads} * header.experts * header.window);
    if (position_ != content_.size()) throw std::runtime_error(path + " is longer than its case");
  }

  const molkv_attention_inputs& inputs() const { return inputs_; }

 private:
  // Copied, so that arrays are aligned, and tools see where each ends.
  const char* Take(size_t size) {
    if (size > content_.size() - position_) throw std::runtime_error("a case file is too short");
    arrays_.emplace_back(content_.data() + position_, content_.data() + position_ + size);
    position_ += size;
    return arrays_.back().data();
  }

  std::vector<char> content_;
  size_t position_ = 0;
  std::vector<std::vector<char>> arrays_;
  molkv_attention_inputs inputs_ = {};
};

}  // namespace molkv_test

#endif  // MOLKV_TESTS_CASE_FILE_H_
