// The text stream's functions of the C ABI.

#include <string>

#include "error.h"
#include "require_pointer.h"
#include "text_stream.h"

struct molkv_text_stream {
  molkv_text_stream(const molkv::Tokenizer& tokenizer, bool skip_special_tokens)
      : stream(tokenizer, skip_special_tokens) {}

  molkv::TextStream stream;
};

extern "C" molkv_status molkv_text_stream_create(const molkv_tokenizer* tokenizer,
                                                 int skip_special_tokens,
                                                 molkv_text_stream** stream, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(tokenizer, "tokenizer");
    molkv::RequirePointer(stream, "stream");
    *stream = new molkv_text_stream(tokenizer->tokenizer, skip_special_tokens != 0);
  });
}

extern "C" void molkv_text_stream_free(molkv_text_stream* stream) { delete stream; }

extern "C" molkv_status molkv_text_stream_push(molkv_text_stream* stream, int64_t token_id,
                                               const char** text, size_t* size,
                                               molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(stream, "stream");
    molkv::RequirePointer(text, "text");
    molkv::RequirePointer(size, "size");
    const std::string& settled = stream->stream.Push(token_id);
    *text = settled.data();
    *size = settled.size();
  });
}

extern "C" molkv_status molkv_text_stream_finish(molkv_text_stream* stream, const char** text,
                                                 size_t* size, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::RequirePointer(stream, "stream");
    molkv::RequirePointer(text, "text");
    molkv::RequirePointer(size, "size");
    const std::string& settled = stream->stream.Finish();
    *text = settled.data();
    *size = settled.size();
  });
}
