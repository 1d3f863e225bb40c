// Errors of the program: every message names the place, the value and the fix.

#ifndef MOLKV_RUNNER_RUNNER_ERROR_H_
#define MOLKV_RUNNER_RUNNER_ERROR_H_

#include <stdexcept>
#include <string>

namespace molkv::runner {

// Wrong usage or bad input: main prints it and ends with exit code 2.
class RunnerError : public std::runtime_error {
 public:
  RunnerError(const std::string& problem, const std::string& fix)
      : std::runtime_error(problem + " (" + fix + ")") {}

  // For libmolkv's messages, which name the fix themselves.
  explicit RunnerError(const char* message) : std::runtime_error(message) {}
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_RUNNER_ERROR_H_
