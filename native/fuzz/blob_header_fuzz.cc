// The header page of an expert blob. An input is the beginning of a page: it is parsed as it is,
// and again as a whole page with the right checksum.

#include "error.h"
#include "fuzz_input.h"
#include "row_layout.h"

namespace molkv::fuzz {
namespace {

void Parse(const uint8_t* page, size_t size) {
  try {
    const BlobHeader header = ParseBlobHeader(page, size, "fuzz.molkv");
    const RowLayout layout =
        RowLayout::Of(header.geometry, header.embedding_dtype, header.row_stride, "fuzz.molkv");
    Promise(header.row_size == layout.row_size, "an accepted row_size is the geometry's");
    Promise(header.row_stride >= header.row_size, "an accepted stride holds a row");
    Promise(header.FileSize() < 1ULL << 58, "an accepted file length does not overflow");
    Promise(header.first_row + header.row_count <= header.vocabulary_size,
            "an accepted shard lies inside the vocabulary");
  } catch (const Error& error) {
    Promise(error.status() == MOLKV_FORMAT, "a bad header is an error of format");
    Promise(std::strncmp(error.what(), "fuzz.molkv: ", 12) == 0, "the message names the file");
    Promise(std::strchr(error.what(), '(') != nullptr, "the message names a fix");
  }
}

}  // namespace
}  // namespace molkv::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  molkv::fuzz::Parse(data, size);
  const auto page = molkv::fuzz::SealedPage(data, size);
  molkv::fuzz::Parse(page.data(), page.size());
  return 0;
}
