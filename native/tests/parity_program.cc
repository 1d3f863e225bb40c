// The parity ladder's rungs 1 to 3 for processors that run no Python of ours: what the library
// computes, written to files that a test compares with NumPy.
//
//   molkv_parity attend CASE FOLDER   FOLDER/NAME: the op's output by each kernel, float32 [T, d]
//   molkv_parity rows BLOB FOLDER     FOLDER/rows: all rows; FOLDER/values: their values [rows,
//                                     layers, N, d] as float32, through the window and the op
//   molkv_parity refuse BLOB...       one line for each: status, a space, the message

#include <cstdio>
#include <exception>
#include <numeric>

#include "case_file.h"

namespace molkv_test {
namespace {

void Require(molkv_status status, const molkv_error& error) {
  if (status != MOLKV_OK) throw std::runtime_error(error.message);
}

void Attend(const std::string& case_path, const std::string& folder) {
  const CaseFile example(case_path);
  molkv_attention_inputs inputs = example.inputs();
  for (int kernel = MOLKV_KERNEL_SCALAR; kernel <= MOLKV_KERNEL_NEON_DOTPROD; ++kernel) {
    if (!molkv_kernel_available(static_cast<molkv_kernel>(kernel))) continue;
    inputs.kernel = static_cast<uint32_t>(kernel);
    std::vector<float> output(size_t{inputs.tokens} * inputs.value_size);
    molkv_error error = {};
    Require(molkv_attention(&inputs, output.data(), nullptr, nullptr, nullptr, &error), error);
    WriteWholeFile(folder + "/" + molkv_kernel_name(static_cast<molkv_kernel>(kernel)),
                   output.data(), output.size() * sizeof(float));
  }
}

struct OpenBlob {
  explicit OpenBlob(const char* path) {
    molkv_error error = {};
    Require(molkv_blob_open(&path, 1, nullptr, &blob, &error), error);
    molkv_blob_get_info(blob, &info);
  }
  ~OpenBlob() { molkv_blob_close(blob); }
  OpenBlob(const OpenBlob&) = delete;
  OpenBlob& operator=(const OpenBlob&) = delete;

  std::vector<uint8_t> ReadAll() {
    std::vector<int64_t> ids(info.vocabulary_size);
    std::iota(ids.begin(), ids.end(), 0);
    std::vector<uint8_t> rows(ids.size() * info.row_stride);
    index.resize(ids.size());
    size_t distinct = 0;
    molkv_error error = {};
    Require(
        molkv_blob_read(blob, ids.data(), ids.size(), rows.data(), index.data(), &distinct, &error),
        error);
    return rows;
  }

  molkv_blob* blob = nullptr;
  molkv_blob_info info = {};
  std::vector<uint32_t> index;
};

// One pair alone has the weight 1, so the op's output is its value, dequantized and exact.
void Dequantize(const molkv_geometry& geometry, const molkv_plane& values,
                const molkv_plane& scales, uint64_t pair, std::vector<float>* result) {
  const float nothing[1] = {};
  const size_t value_bytes = values.row_bytes / geometry.experts;
  const size_t scale_bytes = scales.row_bytes / geometry.experts;
  molkv_attention_inputs inputs = {};
  inputs.struct_size = sizeof(inputs);
  inputs.tokens = inputs.rows = inputs.experts = inputs.heads = 1;
  inputs.key_size = inputs.window = 1;
  inputs.value_size = geometry.value_size;
  inputs.key_dtype = MOLKV_INT8;
  inputs.value_dtype = values.dtype;
  inputs.query = inputs.age_bias = nothing;
  inputs.keys = nothing;
  inputs.values = static_cast<char*>(values.data) + pair * value_bytes;
  if (scales.data != nullptr) {
    inputs.value_scales = static_cast<char*>(scales.data) + pair * scale_bytes;
  }
  result->resize(result->size() + geometry.value_size);
  molkv_error error = {};
  Require(molkv_attention(&inputs, result->data() + result->size() - geometry.value_size, nullptr,
                          nullptr, nullptr, &error),
          error);
}

void Rows(const char* path, const std::string& folder) {
  OpenBlob open(path);
  const std::vector<uint8_t> rows = open.ReadAll();
  WriteWholeFile(folder + "/rows", rows.data(), rows.size());
  const molkv_geometry& geometry = open.info.geometry;
  molkv_error error = {};
  molkv_window* window = nullptr;
  Require(molkv_window_create(&geometry, 1, 1, &window, &error), error);
  std::vector<float> results;
  for (const uint32_t& place : open.index) {
    Require(molkv_window_append(window, rows.data(), open.info.row_stride, &place, 1, &error),
            error);
    for (uint32_t layer = 0; layer < geometry.layers; ++layer) {
      molkv_plane values, scales;
      Require(molkv_window_plane(window, layer, MOLKV_VALUES, &values, &error), error);
      Require(molkv_window_plane(window, layer, MOLKV_VALUE_SCALES, &scales, &error), error);
      for (uint32_t expert = 0; expert < geometry.experts; ++expert) {
        Dequantize(geometry, values, scales, expert, &results);
      }
    }
  }
  molkv_window_free(window);
  WriteWholeFile(folder + "/values", results.data(), results.size() * sizeof(float));
}

// Opens a blob and reads all its rows.
void Refuse(const char* path) {
  molkv_error error = {};
  molkv_blob* blob = nullptr;
  molkv_status status = molkv_blob_open(&path, 1, nullptr, &blob, &error);
  if (status == MOLKV_OK) {
    molkv_blob_info info;
    molkv_blob_get_info(blob, &info);
    for (int64_t id = 0; status == MOLKV_OK && id < int64_t(info.vocabulary_size); ++id) {
      std::vector<uint8_t> row(info.row_stride);
      uint32_t index;
      size_t distinct;
      status = molkv_blob_read(blob, &id, 1, row.data(), &index, &distinct, &error);
    }
  }
  molkv_blob_close(blob);
  std::printf("%d %s\n", static_cast<int>(status), error.message);
}

int Run(int count, char** arguments) {
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "attend" && count == 4) {
    Attend(arguments[2], arguments[3]);
  } else if (command == "rows" && count == 4) {
    Rows(arguments[2], arguments[3]);
  } else if (command == "refuse") {
    for (int i = 2; i < count; ++i) Refuse(arguments[i]);
  } else {
    std::fprintf(stderr, "usage: molkv_parity attend|rows FILE FOLDER, or refuse FILE...\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace molkv_test

int main(int count, char** arguments) {
  try {
    return molkv_test::Run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
