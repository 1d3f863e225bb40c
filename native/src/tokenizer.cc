#include "tokenizer.h"

#include <string>
#include <utility>

#include "error.h"
#include "utf8.h"

namespace molkv {
namespace {

// Places inside a text are kept in 32 bits.
constexpr size_t kLargestText = size_t{1} << 30;

// The text with a space in front, unless it has one; `buffer` holds the result.
std::string_view WithSpace(std::string_view text, std::string* buffer) {
  if (text[0] == ' ') {
    return text;
  }
  return buffer->assign(1, ' ').append(text);
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts)
    : vocabulary_(std::move(parts.vocabulary)),
      encoder_(vocabulary_, std::move(parts.merges), parts.whole_pieces),
      normalizer_(parts.normalizer),
      pre_tokenizer_(parts.pre_tokenizer),
      added_tokens_(std::move(parts.added_tokens)) {}

std::vector<int64_t> Tokenizer::Encode(std::string_view text) const {
  if (text.size() > kLargestText) {
    throw Error(MOLKV_OUT_OF_RANGE, "the text has " + std::to_string(text.size()) +
                                        " bytes, and at most " + std::to_string(kLargestText) +
                                        " are encoded at once (encode it in parts)");
  }
  std::string repaired;
  if (ValidUtf8Prefix(text) != text.size()) {
    AppendReplacingInvalid(text, &repaired);
    text = repaired;
  }
  std::vector<int64_t> ids;
  BytePairEncoder::Scratch scratch;
  for (const TextPart& part : added_tokens_.SplitPlain(text)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      EncodePlain(part.text, &scratch, &ids);
    }
  }
  return ids;
}

void Tokenizer::EncodePlain(std::string_view text, BytePairEncoder::Scratch* scratch,
                            std::vector<int64_t>* ids) const {
  std::string buffer;
  for (const TextPart& part :
       added_tokens_.SplitNormalized(Normalize(normalizer_, text, &buffer))) {
    if (part.id >= 0) {
      ids->push_back(part.id);
    } else {
      EncodePart(part.text, scratch, ids);
    }
  }
}

void Tokenizer::EncodePart(std::string_view text, BytePairEncoder::Scratch* scratch,
                           std::vector<int64_t>* ids) const {
  std::string text_buffer;
  std::string piece_buffer;
  if (pre_tokenizer_.space_before_text) {
    text = WithSpace(text, &text_buffer);
  }
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, FirstPieceSize(pre_tokenizer_.pattern, text));
    text.remove_prefix(piece.size());
    encoder_.Encode(pre_tokenizer_.space_before_pieces ? WithSpace(piece, &piece_buffer) : piece,
                    scratch, ids);
  }
}

std::string_view Tokenizer::Bytes(int64_t id, bool skip_special_tokens) const {
  if (id < 0 || id > UINT32_MAX) {
    throw Error(MOLKV_OUT_OF_RANGE, "token id is " + std::to_string(id) +
                                        ", and must lie between 0 and 4294967295 (pass ids that "
                                        "the sampler or the tokenizer gave)");
  }
  const uint64_t place = static_cast<uint64_t>(id);
  return skip_special_tokens && added_tokens_.IsSpecial(place) ? std::string_view()
                                                               : vocabulary_.Bytes(place);
}

std::string Tokenizer::Decode(const int64_t* ids, size_t count, bool skip_special_tokens) const {
  std::string bytes;
  for (size_t index = 0; index < count; ++index) {
    bytes.append(Bytes(ids[index], skip_special_tokens));
  }
  if (ValidUtf8Prefix(bytes) == bytes.size()) {
    return bytes;
  }
  std::string text;
  AppendReplacingInvalid(bytes, &text);
  return text;
}

}  // namespace molkv
