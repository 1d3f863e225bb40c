#include "byte_pair_encoder.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "byte_alphabet.h"
#include "utf8.h"

namespace molkv {
namespace {

// Up to so many symbols, looking at all pairs for each merge is faster than a queue of them.
constexpr size_t kShortPiece = 24;

constexpr uint32_t kNone = UINT32_MAX;

}  // namespace

MergeTable::MergeTable(size_t count) {
  size_t size = 2;
  while (size < 2 * count + 2) {
    size *= 2;
  }
  mask_ = size - 1;
  merges_.resize(size);
}

bool MergeTable::Add(const Merge& merge) {
  Merge& place = const_cast<Merge&>(Find(merge.left, merge.right));
  if (place.rank != kNoRank) {
    return false;
  }
  place = merge;
  return true;
}

BytePairEncoder::BytePairEncoder(const Vocabulary& vocabulary, MergeTable merges, bool whole_pieces)
    : vocabulary_(vocabulary), merges_(std::move(merges)), whole_pieces_(whole_pieces) {
  for (size_t byte = 0; byte < 0x100; ++byte) {
    std::string character;
    AppendUtf8(kByteAlphabet.characters[byte], &character);
    byte_ids_[byte] = vocabulary.FindInModel(character);
  }
}

void BytePairEncoder::Encode(std::string_view piece, Scratch* scratch,
                             std::vector<int64_t>* ids) const {
  if (whole_pieces_) {
    const int64_t whole = FindWhole(piece);
    if (whole >= 0) {
      ids->push_back(whole);
      return;
    }
  }
  std::vector<uint32_t>& symbols = scratch->symbols;
  symbols.clear();
  for (const char byte : piece) {
    const int64_t id = byte_ids_[static_cast<uint8_t>(byte)];
    if (id >= 0) {
      symbols.push_back(static_cast<uint32_t>(id));
    }
  }
  if (symbols.size() <= kShortPiece) {
    MergeShort(&symbols);
  } else {
    MergeLong(scratch);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

int64_t BytePairEncoder::FindWhole(std::string_view piece) const {
  std::string content;
  content.reserve(piece.size());
  for (const char byte : piece) {
    AppendUtf8(kByteAlphabet.characters[static_cast<uint8_t>(byte)], &content);
  }
  return vocabulary_.FindInModel(content);
}

// Applies the merge of the lowest rank, the first in the piece on a tie, until there is none.
void BytePairEncoder::MergeShort(std::vector<uint32_t>* symbols) const {
  MergeTable::Merge pairs[kShortPiece];  // of each symbol with its right neighbour
  uint32_t* const symbol = symbols->data();
  size_t size = symbols->size();
  for (size_t index = 0; index + 1 < size; ++index) {
    pairs[index] = merges_.Find(symbol[index], symbol[index + 1]);
  }
  while (size > 1) {
    size_t best = 0;
    for (size_t index = 1; index + 1 < size; ++index) {
      if (pairs[index].rank < pairs[best].rank) {
        best = index;
      }
    }
    if (pairs[best].rank == MergeTable::kNoRank) {
      break;
    }
    symbol[best] = pairs[best].id;
    std::copy(symbol + best + 2, symbol + size, symbol + best + 1);
    if (best + 2 < size) {
      std::copy(pairs + best + 2, pairs + size - 1, pairs + best + 1);
    }
    --size;
    if (best > 0) {
      pairs[best - 1] = merges_.Find(symbol[best - 1], symbol[best]);
    }
    if (best + 1 < size) {
      pairs[best] = merges_.Find(symbol[best], symbol[best + 1]);
    }
  }
  symbols->resize(size);
}

// The same, with a queue, so that a piece of a hundred thousand bytes takes milliseconds.
void BytePairEncoder::MergeLong(Scratch* scratch) const {
  std::vector<uint32_t>& symbols = scratch->symbols;
  std::vector<uint32_t>& next = scratch->next;
  std::vector<uint32_t>& previous = scratch->previous;
  std::vector<uint64_t>& queue = scratch->queue;
  const uint32_t size = static_cast<uint32_t>(symbols.size());
  next.resize(size);
  previous.resize(size);
  queue.clear();
  // An entry is a rank above a place: the smallest is the merge to apply next.
  const auto entry = [&](uint32_t place) {
    const uint32_t rank = merges_.Find(symbols[place], symbols[next[place]]).rank;
    return rank == MergeTable::kNoRank ? UINT64_MAX : uint64_t{rank} << 32 | place;
  };
  const auto push = [&](uint32_t place) {
    const uint64_t added = entry(place);
    if (added != UINT64_MAX) {
      queue.push_back(added);
      std::push_heap(queue.begin(), queue.end(), std::greater<uint64_t>());
    }
  };
  for (uint32_t place = 0; place < size; ++place) {
    previous[place] = place == 0 ? kNone : place - 1;
    next[place] = place + 1 == size ? kNone : place + 1;
  }
  for (uint32_t place = 0; place + 1 < size; ++place) {
    const uint64_t added = entry(place);
    if (added != UINT64_MAX) {
      queue.push_back(added);
    }
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<uint64_t>());

  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<uint64_t>());
    const uint64_t lowest = queue.back();
    queue.pop_back();
    const uint32_t place = static_cast<uint32_t>(lowest);
    // An entry is out of date if its left symbol was joined to another or its pair has changed. A
    // pair only ever grows, so its rank tells.
    if (symbols[place] == kNone || next[place] == kNone || entry(place) != lowest) {
      continue;
    }
    const uint32_t right = next[place];
    symbols[place] = merges_.Find(symbols[place], symbols[right]).id;
    symbols[right] = kNone;
    next[place] = next[right];
    if (next[place] != kNone) {
      previous[next[place]] = place;
      push(place);
    }
    if (previous[place] != kNone) {
      push(previous[place]);
    }
  }
  symbols.erase(std::remove(symbols.begin(), symbols.end(), kNone), symbols.end());
}

}  // namespace molkv
