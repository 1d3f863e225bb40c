// A whole blob through the C ABI: open, read, verify, and the window. An input is 16 bytes of
// choices, the header's fields, then the bytes behind the header page.

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>

#include "fuzz_input.h"
#include "molkv/molkv.h"
#include "row_layout.h"

namespace molkv::fuzz {
namespace {

// Larger files would only be slower.
constexpr uint64_t kLargestFile = 1u << 20;
constexpr size_t kIds = 12;
constexpr size_t kLargestWindow = 8;

struct Choices {
  uint8_t flags;
  uint8_t readers;
  uint8_t window;
  uint8_t chunk;
  std::array<int8_t, kIds> ids;

  bool seal_rows() const { return (flags & 1) != 0; }
  bool skip_verify() const { return (flags & 2) != 0; }
  bool resident() const { return (flags & 4) != 0; }
  bool cache() const { return (flags & 8) != 0; }
  bool prefetch() const { return (flags & 16) != 0; }
  bool exact_length() const { return (flags & 32) != 0; }
};
static_assert(sizeof(Choices) == 16);

// The file's length is made right if asked for, and so are the rows' checksums.
void Repair(const Choices& choices, std::vector<uint8_t>* file) {
  try {
    const BlobHeader header = ParseBlobHeader(file->data(), file->size(), "fuzz.molkv");
    if (header.FileSize() > kLargestFile) return;
    if (choices.exact_length()) file->resize(header.FileSize());
    if (!choices.seal_rows() || file->size() != header.FileSize()) return;
    const uint64_t covered = header.row_size - sizeof(uint32_t);
    for (uint64_t row = 0; row < header.row_count; ++row) {
      uint8_t* bytes = file->data() + header.data_offset + row * header.row_stride;
      PutChecksum(Crc32c(bytes, covered), bytes + covered);
    }
  } catch (const std::exception&) {  // opening it must say so
  }
}

class MemoryFile {
 public:
  explicit MemoryFile(const std::vector<uint8_t>& content) : descriptor_(memfd_create("blob", 0)) {
    Promise(descriptor_ >= 0, "the system makes a file");
    Promise(
        write(descriptor_, content.data(), content.size()) == static_cast<ssize_t>(content.size()),
        "the system writes a file");
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

// Rows and their index, from either way to read.
struct Batch {
  std::vector<uint8_t> rows;
  std::vector<uint32_t> index;
};

molkv_status Read(molkv_blob* blob, const Choices& choices, uint64_t stride,
                  const std::vector<int64_t>& ids, Batch* batch) {
  molkv_error error = {};
  size_t distinct = 0;
  molkv_status status;
  if (choices.prefetch()) {
    molkv_prefetch* prefetch = nullptr;
    status = molkv_prefetch_start(blob, ids.data(), ids.size(), &prefetch, &error);
    const uint8_t* rows = nullptr;
    const uint32_t* index = nullptr;
    if (status == MOLKV_OK) {
      status = molkv_prefetch_wait(prefetch, &rows, &index, &distinct, &error);
    }
    if (status == MOLKV_OK) {
      batch->rows.assign(rows, rows + distinct * stride);
      batch->index.assign(index, index + ids.size());
    }
    molkv_prefetch_free(prefetch);
  } else {
    batch->rows.resize(ids.size() * stride);
    batch->index.resize(ids.size());
    status = molkv_blob_read(blob, ids.data(), ids.size(), batch->rows.data(), batch->index.data(),
                             &distinct, &error);
  }
  if (status != MOLKV_OK) CheckFailure(status, error);
  return status;
}

// In each plane the newest row must be the last token's, and there are as many as were kept.
void CheckPlanes(const molkv_window* window, const RowLayout& layout, uint32_t layers,
                 const uint8_t* newest) {
  uint64_t first = 0, last = 0;
  molkv_window_bounds(window, &first, &last);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (const Section& section : layout.sections) {
      molkv_plane plane = {};
      Promise(molkv_window_plane(window, layer, section.kind, &plane, nullptr) == MOLKV_OK,
              "a window has the planes of its geometry");
      Promise(plane.rows == last - first && plane.row_bytes == section.size &&
                  plane.dtype == section.dtype,
              "a plane is as the geometry says");
      const auto* rows = static_cast<const uint8_t*>(plane.data);
      Promise(std::memcmp(rows + (plane.rows - 1) * section.size,
                          newest + layer * layout.layer_size + section.offset, section.size) == 0,
              "the newest row is the last token's");
    }
  }
}

void UseWindow(molkv_window* window, const molkv_geometry& geometry, const Choices& choices,
               uint64_t stride, const Batch& batch) {
  molkv_error error = {};
  const RowLayout layout = RowLayout::Of(geometry, MOLKV_NONE, stride, "fuzz.molkv");
  const size_t chunk = choices.chunk % kLargestWindow;
  for (size_t first = 0; first < batch.index.size(); first += chunk) {
    const size_t count = std::min(chunk, batch.index.size() - first);
    Promise(molkv_window_append(window, batch.rows.data(), stride, batch.index.data() + first,
                                count, &error) == MOLKV_OK,
            "a window takes its chunk");
    const uint8_t* newest = batch.rows.data() + batch.index[first + count - 1] * stride;
    CheckPlanes(window, layout, geometry.layers, newest);
    molkv_window* copy = nullptr;
    Promise(molkv_window_fork(window, &copy, &error) == MOLKV_OK, "a window is forked");
    CheckPlanes(copy, layout, geometry.layers, newest);
    molkv_window_free(copy);
  }
  const molkv_status truncated = molkv_window_truncate(window, choices.window / 32, &error);
  if (truncated != MOLKV_OK) CheckFailure(truncated, error);
  molkv_window_reset(window);
}

void MakeWindow(const molkv_geometry& geometry, const Choices& choices, uint64_t stride,
                const Batch& batch) {
  molkv_error error = {};
  molkv_window* window = nullptr;
  const molkv_status created = molkv_window_create(&geometry, choices.window % kLargestWindow,
                                                   choices.chunk % kLargestWindow, &window, &error);
  if (created == MOLKV_OK) {
    UseWindow(window, geometry, choices, stride, batch);
  } else {
    CheckFailure(created, error);
  }
  molkv_window_free(window);
}

// What was read is what the file has, whichever way it came.
void CheckRows(const std::vector<uint8_t>& file, const molkv_blob_info& info,
               const std::vector<int64_t>& ids, const Batch& batch) {
  const uint64_t start = file.size() - info.vocabulary_size * info.row_stride;
  for (size_t token = 0; token < ids.size(); ++token) {
    const uint64_t position = start + static_cast<uint64_t>(ids[token]) * info.row_stride;
    Promise(std::memcmp(batch.rows.data() + batch.index[token] * info.row_stride,
                        file.data() + position, info.row_stride) == 0,
            "a row is what the file has");
  }
}

// Embeddings are there where the blob says so, and end before the row's checksum.
void CheckEmbeddings(const molkv_blob* blob, const molkv_blob_info& info, const Batch& batch) {
  const uint64_t size = info.geometry.value_size;
  std::vector<float> embeddings(batch.index.size() * size);
  molkv_error error = {};
  const molkv_status status = molkv_blob_embeddings(blob, batch.rows.data(), batch.index.data(),
                                                    batch.index.size(), embeddings.data(), &error);
  if (molkv_blob_embedding_dtype(blob) == MOLKV_NONE) {
    Promise(status == MOLKV_INVALID_ARGUMENT, "rows without embeddings give none");
    CheckFailure(status, error);
    return;
  }
  Promise(status == MOLKV_OK, "rows with embeddings give them");
  const uint64_t begin = info.row_size - sizeof(uint32_t) - (size * 2 + 3) / 4 * 4;
  for (size_t token = 0; token < batch.index.size(); ++token) {
    const uint8_t* stored = batch.rows.data() + batch.index[token] * info.row_stride + begin;
    for (uint64_t place = 0; place < size; ++place) {
      const bool negative = (stored[2 * place + 1] & 0x80) != 0;
      Promise(std::signbit(embeddings[token * size + place]) == negative,
              "an embedding has the signs of its row's");
    }
  }
}

void UseBlob(molkv_blob* blob, const Choices& choices, const std::vector<uint8_t>& file) {
  molkv_blob_info info = {};
  molkv_blob_get_info(blob, &info);
  Batch batch;
  for (int repeat = 0; repeat < 2; ++repeat) {  // the second time, perhaps, from the cache
    const std::vector<int64_t> ids(choices.ids.begin(), choices.ids.end() - 4 * repeat);
    if (Read(blob, choices, info.row_stride, ids, &batch) != MOLKV_OK) return;
    CheckRows(file, info, ids, batch);
  }
  CheckEmbeddings(blob, info, batch);
  MakeWindow(info.geometry, choices, info.row_stride, batch);
}

void Open(const Choices& choices, const std::vector<uint8_t>& file) {
  molkv_blob_options options = {};
  options.struct_size = sizeof(options);
  options.readers = 1 + choices.readers % 3;
  options.skip_verify = choices.skip_verify();
  options.mode = choices.resident() ? MOLKV_RESIDENT : MOLKV_STORAGE;
  options.cache_bytes = choices.cache() ? 4096 : 0;
  const MemoryFile memory(file);
  molkv_error error = {};
  molkv_blob* blob = nullptr;
  const molkv_status status =
      molkv_blob_open_descriptor(memory.descriptor(), 0, file.size(), &options, &blob, &error);
  if (status == MOLKV_OK) {
    UseBlob(blob, choices, file);
  } else {
    CheckFailure(status, error);
    Promise(blob == nullptr, "a refused blob leaves no handle");
  }
  molkv_blob_close(blob);
}

}  // namespace
}  // namespace molkv::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace molkv::fuzz;
  Choices choices = {};
  if (size < sizeof(choices) || size > kLargestFile) return -1;
  std::memcpy(&choices, data, sizeof(choices));
  data += sizeof(choices);
  size -= sizeof(choices);
  const size_t fields = std::min(size, kFieldsSize);
  std::vector<uint8_t> file = SealedPage(data, fields);
  file.insert(file.end(), data + fields, data + size);
  Repair(choices, &file);
  Open(choices, file);
  return 0;
}
