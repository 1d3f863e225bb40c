// The tokenizer's functions of the C ABI.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>

#include "error.h"
#include "json.h"
#include "require_pointer.h"
#include "tokenizer.h"

namespace molkv {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string ReadFile(const char* path) {
  const auto fail = [&](int code) {
    throw Error(MOLKV_IO, "cannot be read: " + std::generic_category().message(code) +
                              " (pass the path of a readable file)");
  };
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path, "rb"));
  if (file == nullptr) {
    fail(errno);
  }
  std::string content;
  char buffer[1 << 14];
  size_t size;
  while ((size = std::fread(buffer, 1, sizeof(buffer), file.get())) > 0) {
    content.append(buffer, size);
    if (content.size() > kLargestJson) {
      break;  // the parser says so
    }
  }
  if (std::ferror(file.get()) != 0) {
    fail(errno);
  }
  return content;
}

// Runs `read` and puts a name in front of what it throws.
template <typename Read>
void WithName(const std::string& name, Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    throw Error(error.status(), name + ": " + error.what());
  }
}

// Hands out a result of unknown size: with `output` NULL only its size, which is an error where the
// caller's memory is too small, too.
template <typename Element>
void HandOut(const Element* result, size_t size, const char* unit, Element* output,
             size_t* capacity) {
  const size_t room = *capacity;
  *capacity = size;
  if (output == nullptr) {
    return;
  }
  if (size > room) {
    throw Error(MOLKV_OUT_OF_RANGE, "the result has " + std::to_string(size) + " " + unit +
                                        ", and there is room for " + std::to_string(room) +
                                        " (ask for the size first, with NULL)");
  }
  if (size > 0) {
    std::memcpy(output, result, size * sizeof(Element));
  }
}

}  // namespace
}  // namespace molkv

extern "C" molkv_status molkv_tokenizer_open(const char* path, molkv_tokenizer** tokenizer,
                                             molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(path, "path");
    molkv::RequirePointer(tokenizer, "tokenizer");
    molkv::WithName(std::string("tokenizer ") + path, [&] {
      *tokenizer = new molkv_tokenizer(molkv::ReadTokenizerFile(molkv::ReadFile(path)));
    });
  });
}

extern "C" molkv_status molkv_tokenizer_parse(const char* json, size_t size,
                                              molkv_tokenizer** tokenizer, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(json, "json");
    molkv::RequirePointer(tokenizer, "tokenizer");
    molkv::WithName("tokenizer", [&] {
      *tokenizer = new molkv_tokenizer(molkv::ReadTokenizerFile({json, size}));
    });
  });
}

extern "C" void molkv_tokenizer_close(molkv_tokenizer* tokenizer) { delete tokenizer; }

extern "C" uint64_t molkv_tokenizer_token_count(const molkv_tokenizer* tokenizer) {
  return tokenizer == nullptr ? 0 : tokenizer->tokenizer.vocabulary().count();
}

extern "C" uint64_t molkv_tokenizer_vocabulary_size(const molkv_tokenizer* tokenizer) {
  return tokenizer == nullptr ? 0 : tokenizer->tokenizer.vocabulary().end();
}

extern "C" int64_t molkv_tokenizer_find(const molkv_tokenizer* tokenizer, const char* content,
                                        size_t size) {
  try {
    return tokenizer == nullptr || content == nullptr
               ? -1
               : tokenizer->tokenizer.vocabulary().Find({content, size});
  } catch (const std::exception&) {  // no memory for a copy of the content
    return -1;
  }
}

extern "C" molkv_status molkv_tokenizer_encode(const molkv_tokenizer* tokenizer, const char* text,
                                               size_t size, int64_t* token_ids, size_t* count,
                                               molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(tokenizer, "tokenizer");
    molkv::RequirePointer(count, "count");
    if (size > 0) {
      molkv::RequirePointer(text, "text");
    }
    const auto ids =
        tokenizer->tokenizer.Encode(size > 0 ? std::string_view(text, size) : std::string_view());
    molkv::HandOut(ids.data(), ids.size(), "ids", token_ids, count);
  });
}

extern "C" molkv_status molkv_tokenizer_decode(const molkv_tokenizer* tokenizer,
                                               const int64_t* token_ids, size_t count,
                                               int skip_special_tokens, char* text, size_t* size,
                                               molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(tokenizer, "tokenizer");
    molkv::RequirePointer(size, "size");
    if (count > 0) {
      molkv::RequirePointer(token_ids, "token_ids");
    }
    const std::string result =
        tokenizer->tokenizer.Decode(token_ids, count, skip_special_tokens != 0);
    molkv::HandOut(result.data(), result.size(), "bytes", text, size);
  });
}
