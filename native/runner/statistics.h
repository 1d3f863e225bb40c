// What a session did and how fast.

#ifndef MOLKV_RUNNER_STATISTICS_H_
#define MOLKV_RUNNER_STATISTICS_H_

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace molkv::runner {

// Counts, and times in seconds.
struct Statistics {
  uint64_t prefill_tokens = 0;
  double prefill_seconds = 0;  // lookup included
  uint64_t decode_tokens = 0;
  double decode_seconds = 0;          // lookup included; sampling and text are not
  double lookup_seconds = 0;          // waiting for rows and copying them into the window
  double decode_engine_seconds = 0;   // inside the graph engine, of decode_seconds
  double time_to_first_token_ms = 0;  // from the prompt's ids to the first token
  double load_ms = 0;                 // to open the bundle and load the graph
  uint64_t rows_read = 0;             // from the blob
  uint64_t bytes_read = 0;
  uint64_t window_bytes = 0;  // the expert window's memory

  // The figures, named as in `molkv run --json`, and more.
  nlohmann::ordered_json ToJson() const;

  // The same for people, one line each.
  std::string ToText() const;
};

// Adds the time from its making to its end to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(*seconds) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { seconds_ += Elapsed(); }

  double Elapsed() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

 private:
  using Clock = std::chrono::steady_clock;

  double& seconds_;
  Clock::time_point began_ = Clock::now();
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_STATISTICS_H_
