// A read that is under way in the background.

#ifndef MOLKV_SRC_PREFETCH_H_
#define MOLKV_SRC_PREFETCH_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "aligned_buffer.h"
#include "blob.h"
#include "molkv/molkv.h"

namespace molkv {

// Begins to read when it is made; the blob must outlive it.
class Prefetch {
 public:
  Prefetch(Blob& blob, const int64_t* token_ids, size_t count);
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  // Gives up a read that has not begun, and waits for one that has.
  ~Prefetch();

  // Waits for the rows and throws what reading them threw. A read that has not begun is done by the
  // calling thread, so nothing ever waits for a thread to be free.
  void Wait();

  // Valid after Wait has returned.
  const uint8_t* rows() const { return job_->rows.get(); }
  const std::vector<uint32_t>& index() const { return job_->plan.index; }
  size_t distinct() const { return job_->plan.ids.size(); }

 private:
  // Shared with the pool, whose queue may hold it longer than the caller does.
  struct Job {
    Job(Blob& source, ReadPlan what);
    bool Claim();  // true for the first that asks
    void Read();   // for the one that claimed it
    void WaitUntilDone();

    Blob& blob;
    ReadPlan plan;
    AlignedBuffer rows;
    std::mutex mutex;
    std::condition_variable finished;
    bool claimed = false;
    bool done = false;
    molkv_error failure{};
  };

  std::shared_ptr<Job> job_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_PREFETCH_H_
