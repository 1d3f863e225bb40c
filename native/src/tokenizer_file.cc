#include "tokenizer_file.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "error.h"
#include "json.h"
#include "json_fields.h"
#include "utf8.h"

namespace molkv {
namespace {

// Longer ones would make the search for them slow, and none is.
constexpr size_t kLongestAddedToken = 1024;

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

void ReadVocabulary(JsonFields* model, Vocabulary* vocabulary) {
  const JsonValue vocab = model->Get("vocab");
  if (!vocab.IsObject()) {
    RefuseField(MOLKV_FORMAT, model->PathOf("vocab"), vocab, "an object");
  }
  JsonValue name = vocab.First();
  for (size_t member = 0; member < vocab.size(); ++member, name = name.Next().Next()) {
    const auto refuse = [&](const std::string& must) {
      RefuseField(MOLKV_FORMAT, "model.vocab[" + Describe(name) + "]", name.Next(), must);
    };
    uint32_t id;
    if (!name.Next().ReadInteger(kLargestTokenId, &id)) {
      refuse("an integer from 0 to " + std::to_string(kLargestTokenId));
    }
    if (!vocabulary->Add(id, name.text(), TokenOrigin::kModel)) {
      refuse("an id that no other token has");
    }
  }
}

// The two tokens of a merge, which is written ["a", "b"] or, by older versions, "a b".
bool ReadPair(const JsonValue& merge, std::string_view* left, std::string_view* right) {
  if (merge.IsString()) {
    const std::string_view text = merge.text();
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return false;
    }
    *left = text.substr(0, space);
    *right = text.substr(space + 1);
    return true;
  }
  if (!merge.IsArray() || merge.size() != 2 || !merge.First().IsString() ||
      !merge.First().Next().IsString()) {
    return false;
  }
  *left = merge.First().text();
  *right = merge.First().Next().text();
  return true;
}

MergeTable ReadMerges(JsonFields* model, const Vocabulary& vocabulary) {
  const JsonValue merges = model->Get("merges");
  if (!merges.IsArray()) {
    RefuseField(MOLKV_FORMAT, model->PathOf("merges"), merges, "an array");
  }
  MergeTable table(merges.size());
  JsonValue merge = merges.First();
  std::string both;
  for (uint32_t rank = 0; rank < merges.size(); ++rank, merge = merge.Next()) {
    if (merge.IsString() && merge.text().substr(0, 8) == "#version") {
      continue;  // a line of the older merges.txt, which the library leaves out too
    }
    const auto path = [&] { return "model.merges[" + std::to_string(rank) + "]"; };
    std::string_view left;
    std::string_view right;
    if (!ReadPair(merge, &left, &right)) {
      RefuseField(MOLKV_FORMAT, path(), merge, "two tokens");
    }
    both.assign(left).append(right);
    const int64_t ids[] = {vocabulary.Find(left), vocabulary.Find(right), vocabulary.Find(both)};
    const std::string_view tokens[] = {left, right, both};
    for (size_t index = 0; index < 3; ++index) {
      if (ids[index] < 0) {
        RefuseField(MOLKV_FORMAT, path(), merge,
                    "of tokens in model.vocab, which lacks " +
                        Quoted(Beginning(tokens[index], kLongestAddedToken / 8)));
      }
    }
    if (!table.Add({static_cast<uint32_t>(ids[0]), static_cast<uint32_t>(ids[1]), rank,
                    static_cast<uint32_t>(ids[2])})) {
      RefuseField(MOLKV_FORMAT, path(), merge, "a pair that is merged once");
    }
  }
  return table;
}

MergeTable ReadModel(const JsonValue& value, Vocabulary* vocabulary, bool* whole_pieces) {
  JsonFields model(value, "model");
  JsonValue field = value;
  if (model.Find("type", &field)) {  // the first versions of the library wrote no type
    model.Expect("type", "BPE");
  }
  if (model.Find("dropout", &field) && field.text() != "0.0" && field.text() != "0") {
    RefuseField(MOLKV_UNSUPPORTED, "model.dropout", field, "null");
  }
  if (model.Find("unk_token", &field)) {
    RefuseField(MOLKV_UNSUPPORTED, "model.unk_token", field, "null");
  }
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.Find(name, &field) && !(field.IsString() && field.text().empty())) {
      RefuseField(MOLKV_UNSUPPORTED, model.PathOf(name), field, "null");
    }
  }
  model.GetBoolean("fuse_unk", false);  // without an unk_token it changes nothing
  if (model.GetBoolean("byte_fallback", false)) {
    model.Find("byte_fallback", &field);
    RefuseField(MOLKV_UNSUPPORTED, "model.byte_fallback", field, "false");
  }
  *whole_pieces = model.GetBoolean("ignore_merges", false);
  ReadVocabulary(&model, vocabulary);
  MergeTable merges = ReadMerges(&model, *vocabulary);
  model.Finish();
  return merges;
}

// Calls `read` with each value of an array and its path.
template <typename Read>
void ReadEach(JsonFields* fields, std::string_view name, const Read& read) {
  const JsonValue values = fields->Get(name);
  if (!values.IsArray()) {
    RefuseField(MOLKV_FORMAT, fields->PathOf(name), values, "an array");
  }
  JsonValue value = values.First();
  for (size_t index = 0; index < values.size(); ++index, value = value.Next()) {
    read(value, fields->PathOf(name) + "[" + std::to_string(index) + "]");
  }
}

std::string_view TypeOf(const JsonValue& value) {
  JsonValue type = value;
  return value.Find("type", &type) && type.IsString() ? type.text() : std::string_view();
}

Normalizer ReadNormalizer(const JsonValue& value, const std::string& path) {
  JsonFields fields(value, path);
  Normalizer result = Normalizer::kNone;
  if (TypeOf(value) == "Sequence") {
    fields.Ignore("type");
    ReadEach(&fields, "normalizers", [&](const JsonValue& step, const std::string& step_path) {
      // NFC twice is NFC.
      if (ReadNormalizer(step, step_path) == Normalizer::kNfc) {
        result = Normalizer::kNfc;
      }
    });
  } else {
    fields.Expect("type", "NFC");
    result = Normalizer::kNfc;
  }
  fields.Finish();
  return result;
}

// Reads the fields of "ByteLevel", which stands in three places of the file.
void ReadByteLevel(JsonFields* fields, bool* add_prefix_space, bool* use_regex) {
  fields->Expect("type", "ByteLevel");
  *add_prefix_space = fields->GetBoolean("add_prefix_space");
  fields->GetBoolean("trim_offsets");  // offsets are not given out
  *use_regex = fields->GetBoolean("use_regex", true);
  fields->Finish();
}

void ReadSplit(const JsonValue& value, const std::string& path, SplitPattern* pattern) {
  JsonFields split(value, path);
  split.Expect("type", "Split");
  JsonFields expression(split.Get("pattern"), split.PathOf("pattern"));
  JsonValue field = value;
  if (expression.Find("String", &field)) {
    RefuseField(MOLKV_UNSUPPORTED, expression.PathOf("String"), field, "a \"Regex\"");
  }
  if (!FindSplitPattern(expression.GetString("Regex"), pattern)) {
    RefuseField(MOLKV_UNSUPPORTED, expression.PathOf("Regex"), expression.Get("Regex"),
                "the regular expression of GPT-2, GPT-4 (Llama 3) or Qwen2");
  }
  expression.Finish();
  split.Expect("behavior", "Isolated");
  if (split.GetBoolean("invert")) {
    RefuseField(MOLKV_UNSUPPORTED, split.PathOf("invert"), split.Get("invert"), "false");
  }
  split.Finish();
}

PreTokenizer ReadSequence(const JsonValue& value) {
  JsonFields fields(value, "pre_tokenizer");
  fields.Expect("type", "Sequence");
  const JsonValue steps = fields.Get("pretokenizers");
  if (!steps.IsArray() || steps.size() != 2) {
    RefuseField(MOLKV_UNSUPPORTED, "pre_tokenizer.pretokenizers", steps,
                "an array of \"Split\" and \"ByteLevel\"");
  }
  PreTokenizer result;
  ReadSplit(steps.First(), "pre_tokenizer.pretokenizers[0]", &result.pattern);
  JsonFields byte_level(steps.First().Next(), "pre_tokenizer.pretokenizers[1]");
  bool use_regex;
  ReadByteLevel(&byte_level, &result.space_before_pieces, &use_regex);
  if (use_regex) {
    throw Error(MOLKV_UNSUPPORTED,
                byte_level.PathOf("use_regex") +
                    " is true, and must be false after a \"Split\" (save the tokenizer with "
                    "ByteLevel(use_regex=False))");
  }
  fields.Finish();
  return result;
}

PreTokenizer ReadPreTokenizer(const JsonValue& value) {
  if (TypeOf(value) == "Sequence") {
    return ReadSequence(value);
  }
  JsonFields fields(value, "pre_tokenizer");
  PreTokenizer result;
  bool use_regex;
  ReadByteLevel(&fields, &result.space_before_text, &use_regex);
  result.pattern = use_regex ? SplitPattern::kGpt2 : SplitPattern::kNone;
  return result;
}

// What a template makes of one text: special tokens, which are not added here, and the text once.
void ReadTemplate(JsonFields* fields) {
  size_t texts = 0;
  ReadEach(fields, "single", [&](const JsonValue& value, const std::string& path) {
    JsonFields piece(value, path);
    JsonValue content = value;
    if (!piece.Find("SpecialToken", &content)) {
      JsonFields sequence(piece.Get("Sequence"), piece.PathOf("Sequence"));
      sequence.Expect("id", "A");
      sequence.Ignore("type_id");
      sequence.Finish();
      ++texts;
    }
    piece.Finish();
  });
  if (texts != 1) {
    RefuseField(MOLKV_UNSUPPORTED, fields->PathOf("single"), fields->Get("single"),
                "a template with one \"Sequence\"");
  }
  fields->Ignore("pair");
  fields->Ignore("special_tokens");
}

// Accepts what only adds special tokens or changes offsets: neither is given out.
void CheckPostProcessor(const JsonValue& value, const std::string& path) {
  JsonFields fields(value, path);
  const std::string_view type = TypeOf(value);
  if (type == "TemplateProcessing") {
    fields.Ignore("type");
    ReadTemplate(&fields);
    fields.Finish();
  } else if (type == "Sequence") {
    fields.Ignore("type");
    ReadEach(&fields, "processors", CheckPostProcessor);
    fields.Finish();
  } else if (type == "ByteLevel") {
    bool unused;
    ReadByteLevel(&fields, &unused, &unused);
  } else {
    RefuseField(MOLKV_UNSUPPORTED, fields.PathOf("type"), fields.Get("type"),
                R"("ByteLevel", "TemplateProcessing" or a "Sequence" of these)");
  }
}

AddedToken ReadAddedToken(const JsonValue& value, const std::string& path) {
  JsonFields fields(value, path);
  AddedToken token;
  token.id = fields.GetInteger("id", kLargestTokenId);
  token.content = fields.GetString("content");
  token.single_word = fields.GetBoolean("single_word");
  token.lstrip = fields.GetBoolean("lstrip");
  token.rstrip = fields.GetBoolean("rstrip");
  token.normalized = fields.GetBoolean("normalized");
  token.special = fields.GetBoolean("special");
  fields.Finish();
  if (token.content.size() > kLongestAddedToken) {
    RefuseField(MOLKV_UNSUPPORTED, path + ".content", fields.Get("content"),
                "at most " + std::to_string(kLongestAddedToken) + " bytes long");
  }
  return token;
}

// Adds tokens whose contents are in the vocabulary. The library looks for a normalized token by the
// normalized form of its content, and decodes it to that; which of them are left out of decoded
// text depends on what they decode to, too.
void AddNormalized(std::vector<AddedToken> tokens, Normalizer normalizer, Vocabulary* vocabulary,
                   AddedTokens* added_tokens) {
  std::unordered_set<std::string> special_contents;
  for (const AddedToken& token : tokens) {
    if (token.special) {
      special_contents.insert(token.content);
    }
  }
  std::string buffer;
  for (AddedToken& token : tokens) {
    if (token.normalized) {
      const std::string_view content = Normalize(normalizer, token.content, &buffer);
      if (content != token.content) {
        vocabulary->Spell(token.id, content);
        token.content = content;
      }
    }
    token.special = special_contents.count(token.content) > 0;
    if (!added_tokens->Add(token)) {
      // The library finds one of the two, and not always the same.
      throw Error(MOLKV_UNSUPPORTED, "added_tokens has two tokens that become " +
                                         Quoted(Beginning(token.content, 80)) +
                                         " when they are normalized (use a tokenizer with one)");
    }
  }
}

void ReadAddedTokens(const JsonValue& value, Normalizer normalizer, Vocabulary* vocabulary,
                     AddedTokens* added_tokens) {
  if (!value.IsArray()) {
    RefuseField(MOLKV_FORMAT, "added_tokens", value, "an array");
  }
  // The library does not read the ids: a token that the model knows keeps the model's, others are
  // numbered from the model's number of tokens on. A file that says otherwise means something
  // different to whoever reads it.
  size_t next_id = vocabulary->count();
  JsonValue item = value.First();
  std::vector<AddedToken> tokens;
  std::unordered_set<std::string> contents;
  for (size_t index = 0; index < value.size(); ++index, item = item.Next()) {
    const std::string path = "added_tokens[" + std::to_string(index) + "]";
    const AddedToken token = ReadAddedToken(item, path);
    if (token.content.empty()) {
      continue;  // as in the library
    }
    const auto refuse = [&](const std::string& must) {
      JsonValue id = item;
      item.Find("id", &id);
      RefuseField(MOLKV_FORMAT, path + ".id", id, must);
    };
    if (!contents.insert(token.content).second) {
      refuse("that of a new token, for " + Quoted(Beginning(token.content, 80)) +
             " was added before");
    }
    const int64_t known = vocabulary->FindInModel(token.content);
    const size_t expected = known >= 0 ? static_cast<size_t>(known) : next_id++;
    if (token.id != expected) {
      refuse(std::to_string(expected) + ", which the tokenizers library gives it");
    }
    if (known < 0 && !vocabulary->Add(token.id, token.content, TokenOrigin::kAdded)) {
      refuse("an id that no other token has");
    }
    tokens.push_back(token);
  }
  AddNormalized(std::move(tokens), normalizer, vocabulary, added_tokens);
}

}  // namespace

TokenizerParts ReadTokenizerFile(std::string_view json) {
  const JsonDocument document(json);
  JsonFields file(document.Root(), "");
  JsonValue field = document.Root();
  if (file.Find("version", &field)) {
    file.Expect("version", "1.0");
  }
  // They come from training, where they shorten and fill up texts.
  file.Ignore("truncation");
  file.Ignore("padding");
  const Normalizer normalizer =
      file.Find("normalizer", &field) ? ReadNormalizer(field, "normalizer") : Normalizer::kNone;

  Vocabulary vocabulary;
  bool whole_pieces = false;
  MergeTable merges = ReadModel(file.Get("model"), &vocabulary, &whole_pieces);
  const PreTokenizer pre_tokenizer = ReadPreTokenizer(file.Get("pre_tokenizer"));

  bool unused;
  JsonFields decoder(file.Get("decoder"), "decoder");
  ReadByteLevel(&decoder, &unused, &unused);
  if (file.Find("post_processor", &field)) {
    CheckPostProcessor(field, "post_processor");
  }

  AddedTokens added_tokens;
  if (file.Find("added_tokens", &field)) {
    ReadAddedTokens(field, normalizer, &vocabulary, &added_tokens);
  }
  file.Finish();
  return {std::move(vocabulary), std::move(merges),       whole_pieces,
          pre_tokenizer,         std::move(added_tokens), normalizer};
}

}  // namespace molkv
