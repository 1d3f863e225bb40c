#include "prefetch.h"

#include <utility>

#include "error.h"

namespace molkv {

Prefetch::Job::Job(Blob& source, ReadPlan what)
    : blob(source),
      plan(std::move(what)),
      rows(MakeAlignedBuffer(plan.ids.size() * source.row_stride())) {}

bool Prefetch::Job::Claim() {
  std::lock_guard<std::mutex> lock(mutex);
  return !std::exchange(claimed, true);
}

void Prefetch::Job::Read() {
  molkv_error result{};
  Guard(&result, [&] { blob.Read(plan.ids, rows.get()); });
  std::lock_guard<std::mutex> lock(mutex);
  failure = result;
  done = true;
  finished.notify_all();
}

void Prefetch::Job::WaitUntilDone() {
  std::unique_lock<std::mutex> lock(mutex);
  finished.wait(lock, [&] { return done; });
}

Prefetch::Prefetch(Blob& blob, const int64_t* token_ids, size_t count)
    : job_(std::make_shared<Job>(blob, blob.Plan(token_ids, count))) {
  // If no thread can be had, Wait reads.
  blob.pool().Start([job = job_] {
    if (job->Claim()) {
      job->Read();
    }
  });
}

Prefetch::~Prefetch() {
  if (job_->Claim()) {
    job_->rows.reset();
  } else {
    job_->WaitUntilDone();
  }
}

void Prefetch::Wait() {
  if (job_->Claim()) {
    job_->Read();
  } else {
    job_->WaitUntilDone();
  }
  if (job_->failure.status != MOLKV_OK) {
    throw Error(job_->failure.status, job_->failure.message);
  }
}

}  // namespace molkv
