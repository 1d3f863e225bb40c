// A header page that breaks any rule is refused, and the message tells which.

#include "blob_header.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "error.h"
#include "example_blob.h"
#include "row_layout.h"

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::ExampleBlob;
using molkv_test::Put;
using molkv_test::SealHeader;

std::string Refusal(const Bytes& page) {
  try {
    ParseBlobHeader(page.data(), page.size(), "a.molkv");
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), MOLKV_FORMAT);
    return error.what();
  }
  return "accepted";
}

Bytes ValidPage() {
  const ExampleBlob blob = ExampleBlob::Small(4);
  return blob.Header(0, 4, 0, 1);
}

TEST(BlobHeaderTest, ReadsEveryField) {
  ExampleBlob blob = ExampleBlob::Small(9);
  Bytes page = blob.Header(3, 4, 1, 3);
  Put<uint64_t>(page, 16, 32768);
  SealHeader(page);
  const BlobHeader header = ParseBlobHeader(page.data(), page.size(), "a.molkv");
  EXPECT_EQ(header.data_offset, 32768u);
  EXPECT_EQ(header.row_stride, 128u);
  EXPECT_EQ(header.row_size, 76u);
  EXPECT_EQ(header.vocabulary_size, 9u);
  EXPECT_EQ(header.first_row, 3u);
  EXPECT_EQ(header.row_count, 4u);
  EXPECT_EQ(header.shard_index, 1u);
  EXPECT_EQ(header.shard_count, 3u);
  EXPECT_EQ(header.FileSize(), 32768u + 4 * 128);
  EXPECT_EQ(header.identity[0], 200);
  EXPECT_EQ(header.identity[31], 231);
  const molkv_geometry expected = blob.Geometry();
  EXPECT_EQ(std::memcmp(&header.geometry, &expected, sizeof(expected)), 0);
}

// The layout of every kind of row against sizes worked out by hand from docs/format.md.
TEST(BlobHeaderTest, LaysOutRows) {
  const RowLayout small = RowLayout::Of(ExampleBlob::Small(1).Geometry(), "a");
  ASSERT_EQ(small.sections.size(), 4u);
  EXPECT_EQ(small.sections[1].offset, 8u);   // keys: 6 bytes, rounded up
  EXPECT_EQ(small.sections[2].offset, 20u);  // values: 12
  EXPECT_EQ(small.sections[3].offset, 28u);  // key scales: 8
  EXPECT_EQ(small.layer_size, 36u);
  EXPECT_EQ(small.row_size, 76u);
  EXPECT_EQ(small.row_stride, 128u);
  const RowLayout half = RowLayout::Of(ExampleBlob::WithoutKeys(1).Geometry(), "a");
  ASSERT_EQ(half.sections.size(), 1u);
  EXPECT_EQ(half.sections[0].kind, MOLKV_VALUES);
  EXPECT_EQ(half.layer_size, 20u);
  EXPECT_EQ(half.row_size, 64u);
  EXPECT_EQ(half.row_stride, 64u);
  const RowLayout large = RowLayout::Of(ExampleBlob::Large(1).Geometry(), "a");
  EXPECT_EQ(large.row_stride % 4096, 0u);
  const molkv_geometry geometry = ExampleBlob::Small(1).Geometry();
  const RowLayout embedded = RowLayout::Of(geometry, MOLKV_FLOAT16, 128, "a");
  EXPECT_EQ(embedded.embedding_offset, 72u);
  EXPECT_EQ(embedded.embedding_size, 12u);
  EXPECT_EQ(embedded.row_size, 88u);
}

TEST(BlobHeaderTest, NamesTheFirstRuleThatABrokenPageBreaks) {
  struct Case {
    const char* begins;  // after "a.molkv: "
    std::function<void(Bytes&)> damage;
    bool seal = true;
  };
  const std::vector<Case> cases = {
      {"file length is 16383, but the header alone has 16384", [](Bytes& page) { page.pop_back(); },
       false},
      {"magic is 47 4d", [](Bytes& page) { page[0] = 'G'; }},
      {"version is 2.0, but this reader reads version 1.0 to 1.2",
       [](Bytes& page) { Put<uint16_t>(page, 8, 2); }, false},
      {"version is 1.3", [](Bytes& page) { Put<uint16_t>(page, 10, 3); }, false},
      {"version_minor is 2, but must be 0 where value_dtype is 3 and embedding_dtype 0",
       [](Bytes& page) { Put<uint16_t>(page, 10, 2); }},
      {"version_minor is 0, but must be 2 where value_dtype is 3 and embedding_dtype 2",
       [](Bytes& page) { Put<uint16_t>(page, 144, 2); }},
      {"embedding_dtype is 3, but must be 0 (none) or 2 (float16)",
       [](Bytes& page) {
         Put<uint16_t>(page, 10, 2);
         Put<uint16_t>(page, 144, 3);
       }},
      {"embedding_dtype is 5, but the types are 0 NONE",
       [](Bytes& page) { Put<uint16_t>(page, 144, 5); }},
      {"row_size is 76, but the dimensions and types imply 88",
       [](Bytes& page) {
         Put<uint16_t>(page, 10, 2);
         Put<uint16_t>(page, 144, 2);
       }},
      {"version_minor is 1, but must be 0 where value_dtype is 3",
       [](Bytes& page) { Put<uint16_t>(page, 10, 1); }},
      {"version_minor is 0, but must be 1 where value_dtype is 4",
       [](Bytes& page) { Put<uint16_t>(page, 94, 4); }},
      {"value_size is 6, but int4 values must be a multiple of 32 (32 for each key head)",
       [](Bytes& page) {
         Put<uint16_t>(page, 10, 1);
         Put<uint16_t>(page, 94, 4);
       }},
      {"header_size is 144, but must be 16384", [](Bytes& page) { Put<uint32_t>(page, 12, 144); }},
      {"header CRC32C is 0x", [](Bytes& page) { page[120] ^= 1; }, false},
      {"reserved byte 200 is 7, but must be 0", [](Bytes& page) { page[200] = 7; }},
      {"reserved byte 16379 is 1", [](Bytes& page) { page[16379] = 1; }},
      {"flags is 1", [](Bytes& page) { Put<uint16_t>(page, 98, 1); }},
      {"reserved field at byte 108 is 1", [](Bytes& page) { Put<uint32_t>(page, 108, 1); }},
      {"value_dtype is 99, but the types are 0 NONE, 1 FLOAT32, 2 FLOAT16, 3 INT8, 4 INT4",
       [](Bytes& page) { Put<uint16_t>(page, 94, 99); }},
      {"data_offset is 0", [](Bytes& page) { Put<uint64_t>(page, 16, 0); }},
      {"data_offset is 16448, but must be a multiple of 16384",
       [](Bytes& page) { Put<uint64_t>(page, 16, 16448); }},
      {"data_offset is 1064960, but must be 16384 to 1048576",
       [](Bytes& page) { Put<uint64_t>(page, 16, 1048576 + 16384); }},
      {"vocabulary_size is 18446744073709551615, but must be 1 to 2147483647",
       [](Bytes& page) { Put<uint64_t>(page, 40, UINT64_MAX); }},
      {"first_row is 18446744073709551613",
       [](Bytes& page) { Put<uint64_t>(page, 48, UINT64_MAX - 2); }},
      {"row_count is 0, but must be 1 to 2147483647",
       [](Bytes& page) { Put<uint64_t>(page, 56, 0); }},
      {"row_count is 18446744073709551615, but must be 1 to 2147483647",
       [](Bytes& page) { Put<uint64_t>(page, 56, UINT64_MAX); }},
      {"shard_count is 0", [](Bytes& page) { Put<uint32_t>(page, 68, 0); }},
      {"shard_count is 100000", [](Bytes& page) { Put<uint32_t>(page, 68, 100000); }},
      {"shard_index is 1, but must be 0 to 0", [](Bytes& page) { Put<uint32_t>(page, 64, 1); }},
      {"row_count is 4, but first_row 0 + row_count must be at most vocabulary_size 3",
       [](Bytes& page) { Put<uint64_t>(page, 40, 3); }},
      {"row_count is 4, but the last shard, and only it, ends at vocabulary_size 5",
       [](Bytes& page) { Put<uint64_t>(page, 40, 5); }},
      {"first_row is 1, but shard_index is 0",
       [](Bytes& page) {
         Put<uint64_t>(page, 48, 1);
         Put<uint64_t>(page, 40, 5);
       }},
      {"layers is 4294967295", [](Bytes& page) { Put<uint32_t>(page, 72, UINT32_MAX); }},
      {"experts is 4097", [](Bytes& page) { Put<uint32_t>(page, 76, 4097); }},
      {"key_heads is 1025", [](Bytes& page) { Put<uint32_t>(page, 80, 1025); }},
      {"key_size is 4097", [](Bytes& page) { Put<uint32_t>(page, 84, 4097); }},
      {"key_size is 0, but key_heads is 1: both or none",
       [](Bytes& page) { Put<uint32_t>(page, 84, 0); }},
      {"value_size is 131073", [](Bytes& page) { Put<uint32_t>(page, 88, 131073); }},
      {"key_dtype is 4, but must be 3", [](Bytes& page) { Put<uint16_t>(page, 92, 4); }},
      {"value_dtype is 1, but must be 2 (float16), 3 (int8) or 4 (int4)",
       [](Bytes& page) { Put<uint16_t>(page, 94, 1); }},
      {"key_dtype is 2, but must be 3", [](Bytes& page) { Put<uint16_t>(page, 92, 2); }},
      {"scale_dtype is 0, but must be 1", [](Bytes& page) { Put<uint16_t>(page, 96, 0); }},
      {"key_group_size is 1, but must be 3", [](Bytes& page) { Put<uint32_t>(page, 100, 1); }},
      {"value_group_size is 0, but must be 6", [](Bytes& page) { Put<uint32_t>(page, 104, 0); }},
      {"row_stride is 64, but a row has 76 bytes",
       [](Bytes& page) { Put<uint64_t>(page, 24, 64); }},
      {"row_stride is 100, but must be a multiple of 64",
       [](Bytes& page) { Put<uint64_t>(page, 24, 100); }},
      {"row_stride is 67108928, but must be at most 67108864",
       [](Bytes& page) { Put<uint64_t>(page, 24, (1 << 26) + 64); }},
      {"row_size is 80, but the dimensions and types imply 76",
       [](Bytes& page) { Put<uint64_t>(page, 32, 80); }},
  };
  for (const Case& broken : cases) {
    Bytes page = ValidPage();
    broken.damage(page);
    if (broken.seal) {
      SealHeader(page);
    }
    const std::string wanted = std::string("a.molkv: ") + broken.begins;
    const std::string refusal = Refusal(page);
    EXPECT_EQ(refusal.substr(0, wanted.size()), wanted) << refusal;
    EXPECT_EQ(refusal.back(), ')') << "a fix is named: " << refusal;
  }
}

TEST(BlobHeaderTest, RefusesRowsOfAPageWhoseStrideIsNot) {
  const ExampleBlob blob = ExampleBlob::Large(1);
  Bytes page = blob.Header(0, 1, 0, 1);
  Put<uint64_t>(page, 24, blob.row_stride + 64);
  SealHeader(page);
  EXPECT_NE(Refusal(page).find("row_stride is 12352, but must be a multiple of 4096"),
            std::string::npos)
      << Refusal(page);
}

TEST(BlobHeaderTest, EveryBitOfThePageCounts) {
  const Bytes valid = ValidPage();
  EXPECT_EQ(Refusal(valid), "accepted");
  for (size_t position = 0; position < valid.size(); position += position < 160 ? 1 : 97) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes page = valid;
      page[position] ^= static_cast<uint8_t>(1 << bit);
      ASSERT_NE(Refusal(page), "accepted") << "byte " << position << ", bit " << bit;
    }
  }
}

}  // namespace
}  // namespace molkv
