// ExecuTorch as this program is linked with it: what is registered, its threads, its messages.

#ifndef MOLKV_RUNNER_EXECUTORCH_RUNTIME_H_
#define MOLKV_RUNNER_EXECUTORCH_RUNTIME_H_

#include <string>

#include "manifest.h"

namespace molkv::runner {

// From now on ExecuTorch's messages go to TakeExecutorchMessage instead of standard error.
void StartExecutorch();

// The last error that ExecuTorch reported since the call before, in its own words; "" for none.
std::string TakeExecutorchMessage();

// Replaces the process's one pool of threads. No program may be loaded: programs keep the pool that
// they began with.
void SetExecutorchThreads(int count);

// Loads a library that registers operators; it stays for as long as the process. Throws RunnerError
// if it cannot be loaded.
void LoadExecutorchOperators(const std::string& file);

// Checks that everything is registered that a program runs. Throws RunnerError that names the first
// operator or delegate that is not, and what brings it.
void RequireExecutorch(const BackendEntry& program);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_EXECUTORCH_RUNTIME_H_
