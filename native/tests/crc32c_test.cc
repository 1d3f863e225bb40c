// Every way to compute CRC-32C gives what its definition, bit by bit, gives.

#include "crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "example_blob.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::PlainCrc32c;

uint32_t Of(Crc32cUpdate update, const uint8_t* data, size_t size) {
  return ~update(0xFFFFFFFF, data, size);
}

Bytes RandomBytes(size_t size) {
  std::mt19937 random(7);
  Bytes bytes(size);
  for (uint8_t& byte : bytes) {
    byte = static_cast<uint8_t>(random());
  }
  return bytes;
}

// The ways that this build and processor have.
std::vector<Crc32cUpdate> Ways() {
  std::vector<Crc32cUpdate> ways = {&Crc32cTable};
  if (std::string(Crc32cName()) == "sse4.2") {
    ways.push_back(Crc32cSse42());
  }
  if (std::string(Crc32cName()) == "armv8") {
    ways.push_back(Crc32cArm());
  }
  return ways;
}

TEST(Crc32cTest, KnownAnswers) {
  // The check value of the catalogue of CRC algorithms, and RFC 3720 B.4.
  EXPECT_EQ(Crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(Crc32c(Bytes(32, 0).data(), 32), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(Bytes(32, 0xFF).data(), 32), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(nullptr, 0), 0u);
}

TEST(Crc32cTest, EveryWayAgreesForAllShortLengthsAndAlignments) {
  const Bytes data = RandomBytes(320);
  for (const Crc32cUpdate way : Ways()) {
    for (size_t start = 0; start < 9; ++start) {
      for (size_t size = 0; size <= 300; ++size) {
        ASSERT_EQ(Of(way, data.data() + start, size), PlainCrc32c(data.data() + start, size))
            << "start " << start << ", size " << size;
      }
    }
  }
}

TEST(Crc32cTest, EveryWayAgreesAroundTheLengthsOfThreeStreams) {
  const Bytes data = RandomBytes(7 * kCrc32cStream);
  for (const Crc32cUpdate way : Ways()) {
    for (const size_t middle : {3 * kCrc32cStream, 6 * kCrc32cStream}) {
      for (size_t size = middle - 9; size <= middle + 9; ++size) {
        ASSERT_EQ(Of(way, data.data() + 1, size), PlainCrc32c(data.data() + 1, size)) << size;
      }
    }
  }
}

TEST(Crc32cTest, EveryWayContinues) {
  const Bytes data = RandomBytes(5000);
  for (const Crc32cUpdate way : Ways()) {
    const uint32_t state = way(0xFFFFFFFF, data.data(), 1234);
    EXPECT_EQ(~way(state, data.data() + 1234, 5000 - 1234), PlainCrc32c(data.data(), 5000));
  }
}

TEST(Crc32cTest, TheProcessorsInstructionsAreUsedWhereThereAreAny) {
#if defined(__x86_64__)
  // Without its compiler flag the file would quietly be empty.
  ASSERT_NE(Crc32cSse42(), nullptr);
  EXPECT_STREQ(Crc32cName(), __builtin_cpu_supports("sse4.2") ? "sse4.2" : "table");
#elif defined(__aarch64__)
  ASSERT_NE(Crc32cArm(), nullptr);
#if defined(__linux__)
  EXPECT_STREQ(Crc32cName(), (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0 ? "armv8" : "table");
#else
  EXPECT_STREQ(Crc32cName(), "armv8");
#endif
#else
  EXPECT_STREQ(Crc32cName(), "table");
#endif
}

}  // namespace
}  // namespace molkv
