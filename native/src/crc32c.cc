#include "crc32c.h"

#include <array>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace molkv {
namespace {

// The polynomial 0x1EDC6F41 with its bits reversed, as the checksum takes the lowest bit first.
constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr int kSlices = 8;
using Tables = std::array<std::array<uint32_t, 256>, kSlices>;

// tables[k][b]: the state that byte b leaves after k more bytes of zeros.
constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) {
      state = (state >> 1) ^ ((state & 1) != 0 ? kPolynomial : 0);
    }
    tables[0][byte] = state;
  }
  for (int slice = 1; slice < kSlices; ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[slice - 1][byte];
      tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

using SkipTables = std::array<std::array<uint32_t, 256>, 4>;

// Skipping zeros is linear, so four tables, one for each byte of a state, hold it for all states.
SkipTables MakeSkipTables() {
  SkipTables tables{};
  for (int place = 0; place < 4; ++place) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t state = byte << (8 * place);
      for (size_t i = 0; i < kCrc32cStream; ++i) {
        state = (state >> 8) ^ kTables[0][state & 0xFF];
      }
      tables[place][byte] = state;
    }
  }
  return tables;
}

struct Way {
  Crc32cUpdate update;
  const char* name;
};

Way FindWay() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") && Crc32cSse42() != nullptr) {
    return {Crc32cSse42(), "sse4.2"};
  }
#elif defined(__aarch64__) && defined(__APPLE__)
  // Every 64-bit processor of Apple has them.
  if (Crc32cArm() != nullptr) {
    return {Crc32cArm(), "armv8"};
  }
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kCrc32Capability = 1UL << 7;  // HWCAP_CRC32 of asm/hwcap.h
  if ((getauxval(AT_HWCAP) & kCrc32Capability) != 0 && Crc32cArm() != nullptr) {
    return {Crc32cArm(), "armv8"};
  }
#endif
  return {&Crc32cTable, "table"};
}

const Way& ChosenWay() {
  static const Way way = FindWay();
  return way;
}

uint32_t LittleEndian32(const uint8_t* from) {
  return static_cast<uint32_t>(from[0]) | static_cast<uint32_t>(from[1]) << 8 |
         static_cast<uint32_t>(from[2]) << 16 | static_cast<uint32_t>(from[3]) << 24;
}

}  // namespace

uint32_t Crc32cTable(uint32_t state, const uint8_t* data, size_t size) {
  for (; size >= kSlices; data += kSlices, size -= kSlices) {
    const uint32_t low = LittleEndian32(data) ^ state;
    const uint32_t high = LittleEndian32(data + 4);
    state = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^
            kTables[5][(low >> 16) & 0xFF] ^ kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^
            kTables[2][(high >> 8) & 0xFF] ^ kTables[1][(high >> 16) & 0xFF] ^
            kTables[0][high >> 24];
  }
  for (; size > 0; ++data, --size) {
    state = (state >> 8) ^ kTables[0][(state ^ *data) & 0xFF];
  }
  return state;
}

uint32_t Crc32cSkipStream(uint32_t state) {
  static const SkipTables tables = MakeSkipTables();
  return tables[0][state & 0xFF] ^ tables[1][(state >> 8) & 0xFF] ^
         tables[2][(state >> 16) & 0xFF] ^ tables[3][state >> 24];
}

uint32_t Crc32c(const void* data, size_t size) {
  return ~ChosenWay().update(0xFFFFFFFF, static_cast<const uint8_t*>(data), size);
}

const char* Crc32cName() { return ChosenWay().name; }

}  // namespace molkv
