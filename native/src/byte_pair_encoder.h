// Byte-pair encoding: joins the bytes of a piece of text into tokens.

#ifndef MOLKV_SRC_BYTE_PAIR_ENCODER_H_
#define MOLKV_SRC_BYTE_PAIR_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "vocabulary.h"

namespace molkv {

// What two neighbouring tokens become, and how early. A hash table of its own, because every byte
// of a text is looked up in it several times.
class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  struct Merge {
    uint32_t left = 0;
    uint32_t right = 0;
    uint32_t rank = kNoRank;  // smaller ones are applied first
    uint32_t id = 0;          // of the token that both become
  };

  // Room for `count` merges.
  explicit MergeTable(size_t count);

  // False if the pair is there already.
  bool Add(const Merge& merge);

  // The pair's merge; its rank is kNoRank if there is none.
  const Merge& Find(uint32_t left, uint32_t right) const {
    size_t place = Hash(left, right);
    while (merges_[place].rank != kNoRank &&
           (merges_[place].left != left || merges_[place].right != right)) {
      place = (place + 1) & mask_;
    }
    return merges_[place];
  }

 private:
  size_t Hash(uint32_t left, uint32_t right) const {
    uint64_t mixed = (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
    mixed ^= mixed >> 32;
    return static_cast<size_t>(mixed) & mask_;
  }

  size_t mask_;
  std::vector<Merge> merges_;  // at most half of them in use, so each search ends
};

class BytePairEncoder {
 public:
  // With `whole_pieces`, a piece that is a token is that token, whatever the merges say. The
  // vocabulary must outlive the encoder.
  BytePairEncoder(const Vocabulary& vocabulary, MergeTable merges, bool whole_pieces);

  // Memory that calls share.
  struct Scratch {
    std::vector<uint32_t> symbols;
    std::vector<uint32_t> next;
    std::vector<uint32_t> previous;
    std::vector<uint64_t> queue;
  };

  // Appends the ids of a piece's tokens. A byte that is no token of its own is left out, as the
  // tokenizers library does it.
  void Encode(std::string_view piece, Scratch* scratch, std::vector<int64_t>* ids) const;

 private:
  int64_t FindWhole(std::string_view piece) const;
  void MergeShort(std::vector<uint32_t>* symbols) const;
  void MergeLong(Scratch* scratch) const;

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  bool whole_pieces_;
  int64_t byte_ids_[0x100];  // -1: the byte is no token
};

}  // namespace molkv

#endif  // MOLKV_SRC_BYTE_PAIR_ENCODER_H_
