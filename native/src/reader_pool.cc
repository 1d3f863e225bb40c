#include "reader_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <system_error>
#include <utility>

#include "error.h"

namespace molkv {
namespace {

// The items of one Run. Shared with the pool's threads, since a thread may come to it only when
// all items are done and the caller is gone.
class Batch {
 public:
  Batch(size_t count, const std::function<void(size_t)>& work) : work_(&work), end_(count) {}

  // Works on items until none is left to begin.
  void Work() {
    size_t item;
    while (Claim(&item)) {
      // A plain struct, as sharing an exception between threads depends on the C++ library.
      molkv_error failure{};
      const molkv_status status = Guard(&failure, [&] { (*work_)(item); });
      std::lock_guard<std::mutex> lock(mutex_);
      if (status != MOLKV_OK && item < failed_) {
        failed_ = item;
        failure_ = failure;
        // Items are claimed in order, so all before this one are under way or done, and the first
        // that fails is the same one however the threads run.
        end_ = next_;
      }
      --running_;
      if (running_ == 0 && next_ >= end_) {
        done_.notify_all();
      }
    }
  }

  // Waits for the items that others began.
  void Finish() {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0 && next_ >= end_; });
    if (failed_ != SIZE_MAX) {
      throw Error(failure_.status, failure_.message);
    }
  }

 private:
  bool Claim(size_t* item) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (next_ >= end_) {
      return false;
    }
    *item = next_++;
    ++running_;
    return true;
  }

  const std::function<void(size_t)>* work_;  // alive while an item is claimed
  std::mutex mutex_;
  std::condition_variable done_;
  size_t next_ = 0;
  size_t end_;
  size_t running_ = 0;
  size_t failed_ = SIZE_MAX;
  molkv_error failure_{};
};

// Signals belong to the application's threads: a new thread inherits the mask that is set here.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

ReaderPool::~ReaderPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void ReaderPool::Run(size_t count, const std::function<void(size_t)>& work) {
  const size_t helpers = std::min<size_t>(readers_, count) - (count > 0 ? 1 : 0);
  if (helpers == 0) {
    for (size_t item = 0; item < count; ++item) {
      work(item);
    }
    return;
  }
  const auto batch = std::make_shared<Batch>(count, work);
  for (size_t helper = 0; helper < helpers; ++helper) {
    // Without threads the caller simply does all of the work.
    Start([batch] { batch->Work(); });
  }
  batch->Work();
  batch->Finish();
}

bool ReaderPool::Start(std::function<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
    if (tasks_.size() > idle_ && threads_.size() < readers_) {
      SpawnThread();
    }
    if (threads_.empty()) {
      tasks_.pop_back();
      return false;
    }
  }
  wake_.notify_one();
  return true;
}

size_t ReaderPool::threads() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return threads_.size();
}

void ReaderPool::SpawnThread() {
  const SignalsBlocked blocked;
  try {
    threads_.emplace_back([this] { Serve(); });
  } catch (const std::system_error&) {
    // The threads that there are, or the caller, do the work.
  }
}

void ReaderPool::Serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    ++idle_;
    wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    --idle_;
    if (tasks_.empty()) {
      return;
    }
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace molkv
