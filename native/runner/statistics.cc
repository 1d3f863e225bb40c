#include "statistics.h"

#include <cstdio>
#include <nlohmann/json.hpp>

namespace molkv::runner {
namespace {

double Ratio(double amount, double by) { return by > 0 ? amount / by : 0; }

template <typename... Arguments>
std::string Line(const char* format, Arguments... arguments) {
  char line[160];
  std::snprintf(line, sizeof(line), format, arguments...);
  return line;
}

}  // namespace

nlohmann::ordered_json Statistics::ToJson() const {
  const double tokens = static_cast<double>(prefill_tokens + decode_tokens);
  const double steps = static_cast<double>(decode_tokens);
  return {
      {"prefill_tokens", prefill_tokens},
      {"prefill_tokens_per_s", Ratio(static_cast<double>(prefill_tokens), prefill_seconds)},
      {"decode_tokens", decode_tokens},
      {"decode_tokens_per_s", Ratio(steps, decode_seconds)},
      {"time_to_first_token_ms", time_to_first_token_ms},
      {"rows_read", rows_read},
      {"bytes_read", bytes_read},
      {"lookup_us_per_token", 1e6 * Ratio(lookup_seconds, tokens)},
      {"decode_us_per_token", 1e6 * Ratio(decode_seconds, steps)},
      {"decode_engine_us_per_token", 1e6 * Ratio(decode_engine_seconds, steps)},
      {"window_bytes", window_bytes},
      {"load_ms", load_ms},
  };
}

std::string Statistics::ToText() const {
  const auto figures = ToJson();
  const auto number = [&](const char* name) { return figures[name].get<double>(); };
  const auto count = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  return Line("loaded in          %.0f ms\n", load_ms) +
         Line("prefill            %.0f tokens/s (%llu tokens)\n", number("prefill_tokens_per_s"),
              count(prefill_tokens)) +
         Line("decode             %.0f tokens/s (%llu tokens)\n", number("decode_tokens_per_s"),
              count(decode_tokens)) +
         Line("first token after  %.1f ms\n", time_to_first_token_ms) +
         Line("expert rows read   %llu rows, %.1f KiB\n", count(rows_read),
              static_cast<double>(bytes_read) / 1024) +
         Line("lookup             %.1f us a token\n", number("lookup_us_per_token")) +
         Line("decode step        %.1f us, of which %.1f us in the graph engine\n",
              number("decode_us_per_token"), number("decode_engine_us_per_token")) +
         Line("expert window      %.1f KiB\n", static_cast<double>(window_bytes) / 1024);
}

}  // namespace molkv::runner
