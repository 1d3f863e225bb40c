// tokenizer.json, and text through what it describes. An input is the file, then perhaps a zero
// byte and the text.

#include <string>

#include "fuzz_input.h"
#include "molkv/molkv.h"

namespace molkv::fuzz {
namespace {

std::vector<int64_t> Encode(const molkv_tokenizer* tokenizer, const std::string& text) {
  molkv_error error = {};
  size_t count = 0;
  const molkv_status status =
      molkv_tokenizer_encode(tokenizer, text.data(), text.size(), nullptr, &count, &error);
  if (status != MOLKV_OK) {
    CheckFailure(status, error);
    return {};
  }
  std::vector<int64_t> ids(count + 1);
  Promise(molkv_tokenizer_encode(tokenizer, text.data(), text.size(), ids.data(), &count, &error) ==
                  MOLKV_OK &&
              count + 1 == ids.size(),
          "encoding twice gives as many ids");
  ids.resize(count);
  const auto size = static_cast<int64_t>(molkv_tokenizer_vocabulary_size(tokenizer));
  for (const int64_t id : ids) Promise(id >= 0 && id < size, "ids are in the vocabulary");
  return ids;
}

std::string Decode(const molkv_tokenizer* tokenizer, const std::vector<int64_t>& ids, int skip) {
  size_t size = 0;
  Promise(molkv_tokenizer_decode(tokenizer, ids.data(), ids.size(), skip, nullptr, &size,
                                 nullptr) == MOLKV_OK,
          "ids of the vocabulary are decoded");
  std::string text(size, '\0');
  Promise(molkv_tokenizer_decode(tokenizer, ids.data(), ids.size(), skip, text.data(), &size,
                                 nullptr) == MOLKV_OK &&
              size == text.size(),
          "decoding twice gives as many bytes");
  return text;
}

std::string Stream(const molkv_tokenizer* tokenizer, const std::vector<int64_t>& ids, int skip) {
  molkv_text_stream* stream = nullptr;
  Promise(molkv_text_stream_create(tokenizer, skip, &stream, nullptr) == MOLKV_OK,
          "a stream is made");
  std::string text;
  const char* settled = nullptr;
  size_t size = 0;
  for (const int64_t id : ids) {
    Promise(molkv_text_stream_push(stream, id, &settled, &size, nullptr) == MOLKV_OK,
            "a stream takes ids of the vocabulary");
    text.append(settled, size);
  }
  Promise(molkv_text_stream_finish(stream, &settled, &size, nullptr) == MOLKV_OK,
          "a stream is finished");
  text.append(settled, size);
  molkv_text_stream_free(stream);
  return text;
}

void Use(const molkv_tokenizer* tokenizer, const std::string& text) {
  const std::vector<int64_t> ids = Encode(tokenizer, text);
  for (const int skip : {0, 1}) {
    Promise(Stream(tokenizer, ids, skip) == Decode(tokenizer, ids, skip),
            "a stream gives what decoding at once gives");
  }
  molkv_tokenizer_find(tokenizer, text.data(), text.size());
}

}  // namespace
}  // namespace molkv::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace molkv::fuzz;
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t json_size = std::min(input.find('\0'), size);
  molkv_error error = {};
  molkv_tokenizer* tokenizer = nullptr;
  const molkv_status status = molkv_tokenizer_parse(input.data(), json_size, &tokenizer, &error);
  if (status == MOLKV_OK) {
    Use(tokenizer, json_size < size ? input.substr(json_size + 1) : "The fox\n  jumps 123\xff");
  } else {
    CheckFailure(status, error);
    Promise(status == MOLKV_FORMAT || status == MOLKV_UNSUPPORTED, "a bad file is said to be one");
    Promise(std::strncmp(error.message, "tokenizer: ", 11) == 0, "the message names the file");
  }
  molkv_tokenizer_close(tokenizer);
  return 0;
}
