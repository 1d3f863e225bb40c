#include "normalizer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <vector>

#include "normalization_tables.h"
#include "utf8.h"

namespace molkv {
namespace {

// Hangul syllables: a leading consonant, a vowel and perhaps a final consonant.
constexpr uint32_t kFirstSyllable = 0xAC00;
constexpr uint32_t kFirstLead = 0x1100;
constexpr uint32_t kFirstVowel = 0x1161;
constexpr uint32_t kBeforeFinals = 0x11A7;
constexpr uint32_t kLeads = 19;
constexpr uint32_t kVowels = 21;
constexpr uint32_t kFinals = 28;  // with none as the first
constexpr uint32_t kSyllables = kLeads * kVowels * kFinals;

// The bytes of the first character that may be active begin with this one or a greater one.
constexpr uint8_t kFirstActiveByte = 0xC0 | kFirstActive >> 6;

struct Character {
  uint32_t code_point;
  uint32_t combining_class;  // 0: a starter
};

// Finds the classes of characters, faster where many come from one range.
class ClassFinder {
 public:
  // As normalization_tables.h defines it.
  uint32_t Find(uint32_t code_point) {
    if (code_point < begin_ || code_point >= end_) {
      Search(code_point);
    }
    return class_;
  }

 private:
  void Search(uint32_t code_point) {
    constexpr uint32_t kClasses = (1u << kNormalizationClassBits) - 1;
    const uint32_t* end = kNormalizationRanges + kNormalizationRangeCount;
    const uint32_t* after = std::upper_bound(kNormalizationRanges, end,
                                             code_point << kNormalizationClassBits | kClasses);
    begin_ = after[-1] >> kNormalizationClassBits;
    end_ = after == end ? UINT32_MAX : *after >> kNormalizationClassBits;
    class_ = after[-1] & kClasses;
  }

  uint32_t begin_ = 0;
  uint32_t end_ = kFirstActive;
  uint32_t class_ = kInert;
};

// Where, from a place on, the next character begins that may be active.
size_t SkipInertBytes(std::string_view text, size_t place) {
  for (uint64_t eight; text.size() - place >= sizeof(eight); place += sizeof(eight)) {
    std::memcpy(&eight, text.data() + place, sizeof(eight));
    if ((eight & 0x8080808080808080u) != 0) {
      break;
    }
  }
  while (place < text.size() && static_cast<uint8_t>(text[place]) < kFirstActiveByte) {
    ++place;
  }
  return place;
}

// Composes the characters of one text after another.
class Composer {
 public:
  // Appends the composed form of a text to `result`.
  void Append(std::string_view text, std::string* result) {
    characters_.clear();
    while (!text.empty()) {
      const Utf8Character character = ReadValidUtf8(text);
      Decompose(character.code_point);
      text.remove_prefix(character.size);
    }
    Order();
    Compose();
    for (const Character& character : characters_) {
      AppendUtf8(character.code_point, result);
    }
  }

 private:
  void Decompose(uint32_t code_point);
  void Order();
  void Compose();

  void Push(uint32_t code_point) {
    const uint32_t found = classes_.Find(code_point);
    characters_.push_back({code_point, found == kActiveStarter ? 0 : found});
  }

  ClassFinder classes_;
  std::vector<Character> characters_;
};

void Composer::Decompose(uint32_t code_point) {
  if (code_point - kFirstSyllable < kSyllables) {
    const uint32_t syllable = code_point - kFirstSyllable;
    Push(kFirstLead + syllable / kFinals / kVowels);
    Push(kFirstVowel + syllable / kFinals % kVowels);
    if (syllable % kFinals != 0) {
      Push(kBeforeFinals + syllable % kFinals);
    }
    return;
  }
  const uint32_t* end = kDecomposed + kDecomposedCount;
  const uint32_t* found = std::lower_bound(kDecomposed, end, code_point << kDecompositionSizeBits);
  if (found == end || *found >> kDecompositionSizeBits != code_point) {
    Push(code_point);
    return;
  }
  const uint32_t* parts = kDecompositions + kDecompositionPlaces[found - kDecomposed];
  const uint32_t count = (*found & ((1u << kDecompositionSizeBits) - 1)) + 1;
  for (uint32_t index = 0; index < count; ++index) {
    Push(parts[index]);
  }
}

// Sorts the marks after each starter by their class.
void Composer::Order() {
  const auto is_starter = [](const Character& one) { return one.combining_class == 0; };
  const auto end = characters_.end();
  for (auto run = characters_.begin(); run != end;) {
    run = std::find_if_not(run, end, is_starter);
    const auto run_end = std::find_if(run, end, is_starter);
    std::stable_sort(run, run_end, [](const Character& left, const Character& right) {
      return left.combining_class < right.combining_class;
    });
    run = run_end;
  }
}

// What two characters become; 0 if they stay two.
uint32_t Composed(uint32_t first, uint32_t second) {
  if (first - kFirstLead < kLeads && second - kFirstVowel < kVowels) {
    const uint32_t lead_and_vowel = (first - kFirstLead) * kVowels + (second - kFirstVowel);
    return kFirstSyllable + lead_and_vowel * kFinals;
  }
  if (first - kFirstSyllable < kSyllables && (first - kFirstSyllable) % kFinals == 0 &&
      second - kBeforeFinals - 1 < kFinals - 1) {
    return first + (second - kBeforeFinals);
  }
  const Composition* end = kCompositions + kCompositionCount;
  const auto key = std::tie(first, second);
  const Composition* found = std::lower_bound(
      kCompositions, end, key, [](const Composition& pair, const decltype(key)& wanted) {
        return std::tie(pair.first, pair.second) < wanted;
      });
  return found != end && found->first == first && found->second == second ? found->composed : 0;
}

// Joins each character to the last starter before it, unless what stands between them blocks it.
void Composer::Compose() {
  constexpr size_t kNoStarter = SIZE_MAX;
  size_t starter = kNoStarter;
  size_t kept = 0;
  for (const Character character : characters_) {
    const bool blocked =
        starter == kNoStarter ||
        (kept > starter + 1 && characters_[kept - 1].combining_class >= character.combining_class);
    const uint32_t composed =
        blocked ? 0 : Composed(characters_[starter].code_point, character.code_point);
    if (composed != 0) {
      characters_[starter].code_point = composed;
      continue;
    }
    if (character.combining_class == 0) {
      starter = kept;
    }
    characters_[kept++] = character;
  }
  characters_.resize(kept);
}

// Only active characters and the inert one before them can change, so all else is copied.
std::string_view Compose(std::string_view text, std::string* buffer) {
  ClassFinder classes;
  Composer composer;
  size_t copied = 0;
  size_t before = 0;  // where the character begins that stands before `place`
  const auto skip = [&](size_t place) {
    const size_t next = SkipInertBytes(text, place);
    if (next > place) {
      before = next - 1;
      while ((static_cast<uint8_t>(text[before]) & 0xC0) == 0x80) {
        --before;
      }
    }
    return next;
  };
  buffer->clear();
  for (size_t place = skip(0); place < text.size(); place = skip(place)) {
    Utf8Character character = ReadValidUtf8(text.substr(place));
    if (classes.Find(character.code_point) == kInert) {
      before = place;
      place += character.size;
      continue;
    }
    do {
      place += character.size;
      if (place == text.size()) {
        break;
      }
      character = ReadValidUtf8(text.substr(place));
    } while (classes.Find(character.code_point) != kInert);
    buffer->append(text.substr(copied, before - copied));
    composer.Append(text.substr(before, place - before), buffer);
    copied = before = place;
  }
  if (copied == 0) {
    return text;
  }
  buffer->append(text.substr(copied));
  return *buffer;
}

}  // namespace

std::string_view Normalize(Normalizer normalizer, std::string_view text, std::string* buffer) {
  return normalizer == Normalizer::kNone ? text : Compose(text, buffer);
}

}  // namespace molkv
