#include "generation.h"

#include <optional>
#include <string>

#include "statistics.h"
#include "text_codec.h"

namespace molkv::runner {

void Generate(Session& session, const molkv_tokenizer* tokenizer,
              const std::vector<int64_t>& prompt_ids, const GenerationOptions& options,
              const TakeToken& take) {
  double seconds = 0;
  const Stopwatch watch(&seconds);
  session.Reset();
  const auto sampler = MakeMolkv<molkv_sampler>(molkv_sampler_create, &options.sampling);
  const float* logits = session.Prefill(prompt_ids);
  std::optional<TextStream> stream;
  if (tokenizer != nullptr) stream.emplace(*tokenizer, prompt_ids);
  const auto vocabulary_size = static_cast<size_t>(session.model().vocab_size);

  for (size_t count = 0; count < options.max_new_tokens; ++count) {
    int64_t token_id = 0;
    CallMolkv(molkv_sampler_sample, sampler.get(), logits, vocabulary_size, &token_id);
    if (count == 0) session.SetTimeToFirstToken(watch.Elapsed());
    if (token_id == options.stop_id) break;
    // The last token is not run: nobody asks what follows it.
    const bool last =
        count + 1 == options.max_new_tokens || session.position() == session.context();
    std::string text;
    if (stream) text = stream->Push(token_id);
    if (stream && last) text += stream->Finish();
    take(token_id, text);
    if (last) break;
    logits = session.Step(token_id);
  }
}

}  // namespace molkv::runner
